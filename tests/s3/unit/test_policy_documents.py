"""Bucket policies: what is refused, and evaluation against a naive model of the rules in AWS's documentation."""

from __future__ import annotations

import fnmatch
import ipaddress
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3.actions import ACTIONS
from vaultaire.s3.errors import S3Error
from vaultaire.s3.policy import Asked, Verdict, parse

BUCKET = "photos"
ARN = f"arn:aws:s3:::{BUCKET}"


def statement(**changes):
    base = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"{ARN}/*"}
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def document(*statements, **rest) -> bytes:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements), **rest}).encode()


def verdict(policy, action="s3:GetObject", key="k", tenant="one", access_key="KEY1", **facts) -> Verdict:
    named = {name.replace("__", ":"): (value,) for name, value in facts.items()}
    return policy.evaluate(Asked(action, BUCKET, key, tenant, access_key), named)


# -- documents


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"not json",
        b"{",
        b'{"Version": "2012-10-17", "Version": "2012-10-17", "Statement": []}',
        b'{"Statement": [{"Effect": NaN}]}',
        b"{" + b'"a":{' * 3000,
        document(),
        document("text"),
        document(statement(), Extra=1),
        document(statement(), Version="2020-01-01"),
        document(statement(), Id=5),
        document(statement(Effect="Maybe")),
        document(statement(Effect=None)),
        document(statement(Other=1)),
        document(statement(Sid=1)),
        document(statement(Sid="a"), statement(Sid="a")),
        document(statement(Principal=None)),
        document(statement(Principal="one")),
        document(statement(Principal={})),
        document(statement(Principal={"AWS": []})),
        document(statement(Principal={"AWS": "on*"})),
        document(statement(Principal={"AWS": 5})),
        document(statement(Principal={"AWS": "arn:aws:iam::one:role/x"})),
        document(statement(Principal={"AWS": "arn:aws:iam:::root"})),
        document(statement(Principal={"AWS": "arn:aws:iam::one:user/*"})),
        document(statement(Principal={"Service": "logging.s3.amazonaws.com"})),
        document(statement(NotPrincipal="*")),
        document(statement(Principal=None, NotPrincipal={"AWS": "one"})),
        document(statement(Action=None)),
        document(statement(Action=[])),
        document(statement(Action="GetObject")),
        document(statement(Action="s3:GetObjekt")),
        document(statement(Action="iam:*")),
        document(statement(Action=["s3:GetObject", 5])),
        document(statement(NotAction="s3:GetObject")),
        document(statement(Resource=None)),
        document(statement(Resource="photos/*")),
        document(statement(Resource="arn:aws:s3:::")),
        document(statement(Resource="arn:aws:s3:::other/*")),
        document(statement(Resource="arn:aws:s3:::photos2/*")),
        document(statement(Resource=f"{ARN}/${{aws:nothing}}/*")),
        document(statement(Resource=f"{ARN}/${{aws:username")),
        document(statement(Resource=f"{ARN}/${{}}")),
        document(statement(Resource=f"{ARN}/${{aws:username, nobody}}")),
        document(statement(Resource="arn:aws:s3:::${aws:username}/*")),
        document(statement(Resource=f"{ARN}/\ud800")),
        document(statement(Resource=f"{ARN}/${{aws:username}}/*"), Version="2008-10-17"),
        document(statement(Resource=f"{ARN}/${{{' ' * 15_000}")),
        document(statement(Resource=ARN)),
        document(statement(Action="s3:ListBucket")),
        document(statement(Condition=[])),
        document(statement(Condition={"StringEquals": {}})),
        document(statement(Condition={"StringEquals": {"s3:nothing": "x"}})),
        document(statement(Condition={"StringEquals": {"s3:ExistingObjectTag/": "x"}})),
        document(statement(Condition={"StringMatches": {"s3:prefix": "x"}})),
        document(statement(Condition={"StringEquals": {"s3:prefix": []}})),
        document(statement(Condition={"StringEquals": {"s3:prefix": {}}})),
        document(statement(Condition={"StringLike": {"s3:prefix": "${s3:ExistingObjectTag/}/*"}})),
        document(statement(Condition={"NumericEquals": {"s3:max-keys": "${aws:userid}"}})),
        document(statement(Condition={"IpAddress": {"aws:SourceIp": "${aws:SourceIp}"}})),
        document(statement(Condition={"Null": {"s3:prefix": "${aws:userid}"}})),
        document(statement(Condition={"Some:StringLike": {"s3:prefix": "x"}})),
        document(statement(Condition={"Bool": {"aws:SecureTransport": "yes"}})),
        document(statement(Condition={"IpAddress": {"aws:SourceIp": "300.0.0.1"}})),
        document(statement(Condition={"NumericLessThan": {"s3:max-keys": "many"}})),
        document(statement(Condition={"NumericLessThan": {"s3:max-keys": "1e99999"}})),
        document(statement(Condition={"DateLessThan": {"aws:CurrentTime": "tomorrow"}})),
        document(statement(Condition={"Null": {"s3:prefix": "maybe"}})),
        document(statement(Condition={"NullIfExists": {"s3:prefix": "true"}})),
        document(statement(Sid="x" * (20 << 10))),
    ],
)
def test_a_document_that_cannot_be_kept_is_refused(body):
    with pytest.raises(S3Error) as caught:
        parse(body, BUCKET)
    assert caught.value.code == "MalformedPolicy"
    assert caught.value.message


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text('{}[]":,ABC*', max_size=60).map(str.encode))
def test_garbage_is_malformed_and_nothing_else(body):
    with pytest.raises(S3Error, match="MalformedPolicy"):
        parse(body, BUCKET)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"Statement": statement()}).encode(),
        document(statement(Sid=""), statement(Sid="")),  # as mc sends them
        document(statement(), Version="2008-10-17", Id="x"),
        b"\n " + document(statement()),
        document(statement(Action="*", Resource=["*"])),
        document(statement(Action="s3:*", Resource=ARN)),
        document(statement(Action="S3:getobject")),
        document(statement(Action=["s3:ListBucket", "s3:GetObject"], Resource=[ARN, f"{ARN}/*"])),
        document(statement(Resource="arn:aws:s3:::*")),
        document(statement(Resource="arn:aws:s3:::pho*")),
        document(statement(Resource="arn:aws:s3:::*/*")),
        document(statement(Effect="Deny", Principal=None, NotPrincipal={"AWS": "one"})),
        document(statement(Effect="Deny", Resource=None, NotResource="arn:aws:s3:::elsewhere/*")),
    ],
)
def test_what_aws_accepts_is_accepted(body):
    assert parse(body, BUCKET).statements


# -- principals


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        ("*", "anonymous one/KEY1 one/KEY2 two/KEY3"),
        ({"AWS": "*"}, "anonymous one/KEY1 one/KEY2 two/KEY3"),
        ({"AWS": "one"}, "one/KEY1 one/KEY2"),
        ({"AWS": ["KEY2", "two"]}, "one/KEY2 two/KEY3"),
        ({"AWS": "arn:aws:iam::one:root"}, "one/KEY1 one/KEY2"),
        ({"AWS": "arn:aws:iam::KEY1:root"}, ""),
        ({"AWS": "arn:aws:iam::one:user/KEY2"}, "one/KEY2"),
        ({"AWS": "arn:aws:iam::two:user/KEY2"}, ""),
        ({"CanonicalUser": "two"}, "two/KEY3"),
    ],
)
def test_a_principal_is_a_tenant_or_an_access_key(principal, expected):
    policy = parse(document(statement(Principal=principal)), BUCKET)
    callers = [(None, None), ("one", "KEY1"), ("one", "KEY2"), ("two", "KEY3")]
    allowed = [
        "anonymous" if tenant is None else f"{tenant}/{key}"
        for tenant, key in callers
        if verdict(policy, tenant=tenant, access_key=key) is Verdict.ALLOW
    ]
    assert " ".join(allowed) == expected


def test_not_principal_denies_everyone_else():
    policy = parse(document(statement(Effect="Deny", Principal=None, NotPrincipal={"AWS": "one"})), BUCKET)
    assert verdict(policy, tenant="one") is Verdict.SILENT
    assert verdict(policy, tenant="two", access_key="KEY3") is Verdict.DENY
    assert verdict(policy, tenant=None, access_key=None) is Verdict.DENY


# -- evaluation, against a model

actions = st.sampled_from(("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"))
action_patterns = st.sampled_from(("*", "s3:*", "s3:Get*", "s3:?utObject", "s3:*Object", "s3:listbucket"))
keys = st.none() | st.sampled_from(("a", "a/b", "logs/1", "logs/2/x", "photos"))
resource_patterns = st.sampled_from(
    (ARN, f"{ARN}/*", f"{ARN}/logs/*", f"{ARN}/?", f"{ARN}/*/x", f"{ARN}*", "arn:aws:s3:::*")
)
principals = st.sampled_from(("*", {"AWS": "one"}, {"AWS": ["two", "KEY9"]}, {"AWS": "*"}))
callers = st.sampled_from(((None, None), ("one", "KEY1"), ("two", "KEY2"), ("three", "KEY9")))
addresses = st.sampled_from(("10.1.2.3", "10.2.0.1", "192.168.0.7", "::1", "2001:db8::5"))
prefixes = st.none() | st.sampled_from(("", "logs/", "LOGS/", "a"))
conditions = st.lists(
    st.sampled_from(
        (
            ("StringEquals", "s3:prefix", ("logs/", "a")),
            ("StringNotEquals", "s3:prefix", ("logs/", "a")),
            ("StringEqualsIgnoreCase", "s3:prefix", ("Logs/",)),
            ("StringLike", "s3:prefix", ("l*/", "?")),
            ("StringNotLike", "s3:prefix", ("l*",)),
            ("StringLikeIfExists", "s3:prefix", ("l*",)),
            ("StringNotLikeIfExists", "s3:prefix", ("l*",)),
            ("IpAddress", "aws:SourceIp", ("10.1.0.0/16", "::/64")),
            ("NotIpAddress", "aws:SourceIp", ("10.0.0.0/8",)),
            ("Null", "s3:prefix", ("true",)),
            ("Null", "s3:prefix", ("false",)),
            ("Bool", "aws:SecureTransport", ("true",)),
        )
    ),
    max_size=3,
)
statements = st.builds(
    lambda effect, principal, action, resource, listed, not_action, not_resource: {
        "Effect": effect,
        "Principal": principal,
        "NotAction" if not_action else "Action": action,
        "NotResource" if not_resource else "Resource": resource,
        **({"Condition": blocks(listed)} if listed else {}),
    },
    st.sampled_from(("Allow", "Allow", "Deny")),
    principals,
    st.lists(action_patterns, min_size=1, max_size=2),
    st.lists(resource_patterns, min_size=1, max_size=2),
    conditions,
    st.booleans(),
    st.booleans(),
)


def blocks(listed):
    found: dict[str, dict[str, list[str]]] = {}
    for operator, key, values in listed:
        found.setdefault(operator, {})[key] = list(values)
    return found


def like(pattern: str, text: str) -> bool:
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def model_condition(operator: str, values, found: str | None) -> bool:
    if operator == "Null":
        return (found is None) == (values[0] == "true")
    if operator.endswith("IfExists"):
        if found is None:
            return True
        operator = operator.removesuffix("IfExists")
    if "Not" in operator:
        return not model_condition(operator.replace("Not", ""), values, found)
    if found is None:
        return False
    tests = {
        "StringEquals": lambda value: value == found,
        "StringEqualsIgnoreCase": lambda value: value.lower() == found.lower(),
        "StringLike": lambda value: like(value, found),
        "Bool": lambda value: value == found,
        "IpAddress": lambda value: ipaddress.ip_address(found) in ipaddress.ip_network(value),
    }
    return any(tests[operator](value) for value in values)


def model(listed, action, key, tenant, access_key, facts) -> Verdict:
    resource = ARN if key is None else f"{ARN}/{key}"
    effects = set()
    for one in listed:
        named = one["Principal"]["AWS"] if isinstance(one["Principal"], dict) else "*"
        named = [named] if isinstance(named, str) else named
        included = "*" in named or (tenant is not None and bool({tenant, access_key} & {*named}))
        acts = any(like(p.lower(), action.lower()) for p in one.get("Action", one.get("NotAction")))
        rests = any(like(p, resource) for p in one.get("Resource", one.get("NotResource")))
        holds = all(
            model_condition(operator, values, facts.get(name))
            for operator, block in one.get("Condition", {}).items()
            for name, values in block.items()
        )
        if included and acts == ("Action" in one) and rests == ("Resource" in one) and holds:
            effects.add(one["Effect"])
    if "Deny" in effects:
        return Verdict.DENY
    return Verdict.ALLOW if effects else Verdict.SILENT


@settings(max_examples=400, deadline=None)
@given(
    st.lists(statements, min_size=1, max_size=4), actions, keys, callers, prefixes, addresses, st.booleans()
)
def test_evaluation_is_what_the_rules_say(listed, action, key, caller, prefix, address, secure):
    facts = {"aws:SourceIp": address, "aws:SecureTransport": "true" if secure else "false"}
    if prefix is not None:
        facts["s3:prefix"] = prefix
    try:
        policy = parse(document(*listed), BUCKET)
    except S3Error as error:
        assert "does not apply to any resource" in error.message  # noqa: PT017  # of a generated policy: no matter
        return
    asked = Asked(action, BUCKET, key, *caller)
    found = policy.evaluate(asked, {name.lower(): (value,) for name, value in facts.items()})
    assert found is model(listed, action, key, *caller, facts)


@given(st.lists(statements.filter(lambda one: one["Effect"] == "Allow"), min_size=1, max_size=3), keys)
def test_a_deny_of_everything_wins_wherever_it_stands(listed, key):
    deny = statement(Effect="Deny", Action="*", Resource="*")
    for order in ([deny, *listed], [*listed, deny]):
        try:
            policy = parse(document(*order), BUCKET)
        except S3Error:
            return
        assert verdict(policy, "s3:GetObject", key) is Verdict.DENY


# -- operators that the model leaves out


@pytest.mark.parametrize(
    ("operator", "key", "wanted", "found", "holds"),
    [
        ("NumericEquals", "s3:max-keys", "10", "10", True),
        ("NumericEquals", "s3:max-keys", 10, "10.0", True),
        ("NumericLessThanEquals", "s3:max-keys", "10", "11", False),
        ("NumericLessThanEquals", "s3:max-keys", "10", "ten", False),
        ("NumericNotEquals", "s3:max-keys", "10", "ten", True),
        ("NumericGreaterThan", "s3:max-keys", "10", None, False),
        ("NumericNotEquals", "s3:max-keys", "10", None, True),
        ("DateLessThan", "aws:CurrentTime", "2030-01-01T00:00:00Z", "2029-12-31T23:59:59+00:00", True),
        ("DateGreaterThan", "aws:CurrentTime", "2030-01-01", "2029-12-31T23:59:59+00:00", False),
        ("DateGreaterThanEquals", "aws:EpochTime", "1893456000", "1893456000", True),
        ("DateEquals", "aws:CurrentTime", "1893456000", "2030-01-01T00:00:00+00:00", True),
        ("IpAddress", "aws:SourceIp", "10.0.0.1", "::ffff:10.0.0.1", True),
        ("NotIpAddress", "aws:SourceIp", "10.0.0.0/8", "::ffff:10.0.0.1", False),
        ("IpAddress", "aws:SourceIp", "10.0.0.0/8", "nonsense", False),
        ("Bool", "aws:SecureTransport", False, "false", True),
        ("ArnLike", "aws:PrincipalArn", "arn:aws:iam::one:*", "arn:aws:iam::one:user/K", True),
        ("StringEquals", "s3:ExistingObjectTag/Team", "a", "a", True),
        ("StringEquals", "S3:Prefix", "a", None, False),
    ],
)
def test_an_operator_compares_as_aws_says(operator, key, wanted, found, holds):
    policy = parse(document(statement(Condition={operator: {key: wanted}})), BUCKET)
    prefix, slash, rest = key.partition("/")
    facts = {} if found is None else {prefix.lower() + slash + rest: (found,)}
    expected = Verdict.ALLOW if holds else Verdict.SILENT
    assert policy.evaluate(Asked("s3:GetObject", BUCKET, "k", None, None), facts) is expected


@pytest.mark.parametrize(
    ("operator", "found", "holds"),
    [
        ("ForAllValues:StringEquals", ("a", "b"), True),
        ("ForAllValues:StringEquals", ("a", "c"), False),
        ("ForAllValues:StringEquals", None, True),
        ("ForAnyValue:StringEquals", ("c", "b"), True),
        ("ForAnyValue:StringEquals", ("c",), False),
        ("ForAnyValue:StringEquals", None, False),
        ("ForAnyValue:StringNotEquals", None, False),
    ],
)
def test_set_operators_look_at_every_tag_key(operator, found, holds):
    condition = {operator: {"s3:RequestObjectTagKeys": ["a", "b"]}}
    policy = parse(document(statement(Condition=condition)), BUCKET)
    facts = {} if found is None else {"s3:requestobjecttagkeys": found}
    answer = policy.evaluate(Asked("s3:GetObject", BUCKET, "k", None, None), facts)
    assert answer is (Verdict.ALLOW if holds else Verdict.SILENT)


def test_tags_have_case_and_other_keys_have_none():
    policy = parse(
        document(statement(Condition={"StringEquals": {"S3:existingObjectTag/Team": "a"}})), BUCKET
    )
    assert policy.asks_for_existing_tags
    asked = Asked("s3:GetObject", BUCKET, "k", None, None)
    assert policy.evaluate(asked, {"s3:existingobjecttag/Team": ("a",)}) is Verdict.ALLOW
    assert policy.evaluate(asked, {"s3:existingobjecttag/team": ("a",)}) is Verdict.SILENT


# -- public or not


@pytest.mark.parametrize(
    ("changes", "public"),
    [
        ({}, True),
        ({"Effect": "Deny"}, False),
        ({"Principal": {"AWS": "one"}}, False),
        ({"Principal": {"AWS": ["one", "*"]}}, True),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/1"}}}, True),
        ({"Condition": {"IpAddress": {"aws:SourceIp": ["10.0.0.1", "::/0"]}}}, True),
        ({"Condition": {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, True),
        ({"Condition": {"IpAddressIfExists": {"aws:SourceIp": "10.0.0.0/8"}}}, True),
        ({"Condition": {"StringEquals": {"aws:PrincipalAccount": "one"}}}, False),
        ({"Condition": {"StringLike": {"aws:PrincipalAccount": "o*"}}}, True),
        ({"Condition": {"StringNotEquals": {"aws:username": "one"}}}, True),
        ({"Condition": {"StringEquals": {"aws:Referer": "http://a.test"}}}, True),
        ({"Condition": {"ForAllValues:StringEquals": {"aws:PrincipalAccount": "one"}}}, True),
    ],
)
def test_a_policy_for_everyone_is_public_unless_tied_to_fixed_values(changes, public):
    policy = parse(document(statement(**changes), statement(Effect="Deny", Sid="other")), BUCKET)
    assert policy.is_public is public


def test_every_known_action_is_matched_by_its_own_name():
    for action, kind in ACTIONS.items():
        resource = ARN if kind == "bucket" else f"{ARN}/*"
        policy = parse(document(statement(Action=action, Resource=resource)), BUCKET)
        assert verdict(policy, action, None if kind == "bucket" else "k") is Verdict.ALLOW


# -- variables


def home(**changes):
    return parse(document(statement(Resource=f"{ARN}/home/${{aws:username}}/*", **changes)), BUCKET)


def test_a_variable_in_a_resource_is_the_value_of_the_request():
    assert verdict(home(), key="home/ann/k", aws__username="ann") is Verdict.ALLOW
    assert verdict(home(), key="home/bob/k", aws__username="ann") is Verdict.SILENT
    assert verdict(home(), key="home/ann/k") is Verdict.SILENT  # nobody's home
    assert verdict(home(), key="home/${aws:username}/k") is Verdict.SILENT


def test_the_value_of_a_variable_is_no_pattern():
    assert verdict(home(), key="home/bob/k", aws__username="*") is Verdict.SILENT
    assert verdict(home(), key="home/bob/k", aws__username="bo?") is Verdict.SILENT
    assert verdict(home(), key="home/*/k", aws__username="*") is Verdict.ALLOW


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("a${*}b*", "a*bc", "axbc"),
        ("a${?}b?", "a?bc", "axbc"),
        ("${$}{x}", "${x}", "$x"),
        ("${aws:userid, 'none'}/*", "none/k", "/k"),
        ("${aws:userid,'it''s'}", "it's", "it''s"),
        ("${aws:userid, '*'}", "*", "x"),
        ("${ AWS:UserName }/${s3:prefix}", "ann/p", "ann/"),
        ("${s3:ExistingObjectTag/Team}/*", "red/k", "blue/k"),
    ],
)
@pytest.mark.parametrize("where", ["resource", "condition"])
def test_variables_are_read_as_documented(pattern, fits, does_not, where):
    if where == "resource":
        policy = parse(document(statement(Resource=f"{ARN}/{pattern}")), BUCKET)
    else:
        policy = parse(document(statement(Condition={"StringLike": {"s3:x-amz-acl": [pattern]}})), BUCKET)
    facts = {"aws:username": ("ann",), "s3:prefix": ("p",), "s3:existingobjecttag/Team": ("red",)}
    for text, wanted in ((fits, Verdict.ALLOW), (does_not, Verdict.SILENT)):
        asked = Asked("s3:GetObject", BUCKET, text if where == "resource" else "k", "one", "KEY1")
        assert policy.evaluate(asked, {**facts, "s3:x-amz-acl": (text,)}) is wanted


def test_a_variable_without_a_value_is_equal_to_nothing():
    def asks(operator):
        conditions = {operator: {"s3:prefix": "${aws:username}/"}}
        return parse(document(statement(Action="s3:ListBucket", Resource=ARN, Condition=conditions)), BUCKET)

    facts = {"s3__prefix": "ann/"}
    for operator, known, unknown in (
        ("StringEquals", Verdict.ALLOW, Verdict.SILENT),
        ("StringNotEquals", Verdict.SILENT, Verdict.ALLOW),
        ("StringLikeIfExists", Verdict.ALLOW, Verdict.SILENT),
    ):
        policy = asks(operator)
        assert verdict(policy, "s3:ListBucket", None, aws__username="ann", **facts) is known
        assert verdict(policy, "s3:ListBucket", None, **facts) is unknown


def test_all_but_an_unknown_home_is_denied_and_not_allowed():
    rest = {"Resource": None, "NotResource": f"{ARN}/home/${{aws:username}}/*"}
    allowing = parse(document(statement(**rest)), BUCKET)
    denying = parse(document(statement(Effect="Deny", **rest)), BUCKET)
    for name, key, allowed, denied in (
        ("ann", "home/ann/k", Verdict.SILENT, Verdict.SILENT),
        ("ann", "home/bob/k", Verdict.ALLOW, Verdict.DENY),
        (None, "home/bob/k", Verdict.SILENT, Verdict.DENY),
    ):
        facts = {} if name is None else {"aws__username": name}
        assert verdict(allowing, key=key, **facts) is allowed
        assert verdict(denying, key=key, **facts) is denied


def test_a_condition_with_a_variable_does_not_make_a_statement_private():
    fixed = {"StringEquals": {"aws:username": "ann"}}
    variable = {"StringEquals": {"aws:username": "${aws:username}"}}
    assert not parse(document(statement(Condition=fixed)), BUCKET).is_public
    assert parse(document(statement(Condition=variable)), BUCKET).is_public


def test_what_variables_ask_for_is_looked_up():
    assert parse(
        document(statement(Resource=f"{ARN}/${{s3:ExistingObjectTag/a}}")), BUCKET
    ).asks_for_existing_tags
    conditions = {"StringEquals": {"s3:prefix": "${s3:object-lock-mode}"}}
    assert parse(document(statement(Condition=conditions)), BUCKET).asks_for_locks
    assert not home().asks_for_locks


def test_a_value_that_comes_many_times_is_no_long_text():
    policy = parse(document(statement(Resource=f"{ARN}/{'${aws:UserAgent}' * 1000}")), BUCKET)
    assert verdict(policy, key="a" * 1000, aws__useragent="a") is Verdict.ALLOW
    assert verdict(policy, key="a" * 1000, aws__useragent="a" * 8000) is Verdict.SILENT
