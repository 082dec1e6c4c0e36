"""LifecycleConfiguration documents: what boto3 sends is read, what is written reads back, the rest is refused."""

from __future__ import annotations

import contextlib
import datetime
from itertools import count

import botocore.parsers
import botocore.serialize
import botocore.session
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultaire.s3.errors import S3Error
from vaultaire.s3.lifecycle import DAY_MS, Filter, Rule
from vaultaire.s3.lifecycle_xml import format_lifecycle, parse_lifecycle

MODEL = botocore.session.get_session().get_service_model("s3")
SERIALIZER = botocore.serialize.create_serializer("rest-xml", include_validation=False)


def parse(body: bytes | str):
    numbers = count(1)
    body = body.encode() if isinstance(body, str) else body
    return parse_lifecycle(body, lambda: f"new-{next(numbers)}")


def sent(*rules) -> bytes:
    operation = MODEL.operation_model("PutBucketLifecycleConfiguration")
    parameters = {"Bucket": "b", "LifecycleConfiguration": {"Rules": list(rules)}}
    body = SERIALIZER.serialize_to_request(parameters, operation)["body"]
    return body if isinstance(body, bytes) else body.encode()


def document(*rules: str) -> str:
    inner = "".join(f"<Rule>{rule}</Rule>" for rule in rules)
    return f"<LifecycleConfiguration>{inner}</LifecycleConfiguration>"


def xml_rule(middle: str = "<Expiration><Days>1</Days></Expiration>", head: str = "<Filter/>") -> str:
    return f"{head}<Status>Enabled</Status>{middle}"


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\ufffe\uffff", min_codepoint=32))
TAG = st.tuples(TEXT.filter(lambda text: 1 <= len(text) <= 128), TEXT.filter(lambda text: len(text) <= 256))
SIZE = st.integers(0, 10**12)
POSITIVE = st.integers(1, (1 << 31) - 1)
SIMPLE = st.one_of(
    st.builds(lambda p: Filter(p, form="rule-prefix"), TEXT),
    st.builds(Filter, st.none() | TEXT),
    st.builds(lambda s: Filter(larger_than=s), SIZE),
    st.builds(lambda s: Filter(smaller_than=s), SIZE),
)
TAGGED = st.one_of(
    st.builds(lambda t: Filter(tags=(t,)), TAG),
    st.builds(
        lambda prefix, tags, low: Filter(prefix, tuple(tags), low, low + 1, "and"),
        st.none() | TEXT,
        st.lists(TAG, min_size=1, max_size=3, unique_by=lambda tag: tag[0]),
        SIZE,
    ),
)
ACTIONS = st.one_of(
    st.builds(lambda n: {"expire_days": n}, POSITIVE),
    st.builds(lambda n: {"expire_at_ms": n * DAY_MS}, st.integers(0, 2_000_000)),
    st.builds(
        lambda n, m: {"noncurrent_days": n, "newer_noncurrent": m}, POSITIVE, st.none() | st.integers(1, 100)
    ),
)
RULE = st.builds(
    lambda name, on, wanted, actions: Rule(name, on, wanted, **actions),
    TEXT.filter(lambda text: 1 <= len(text) <= 255),
    st.booleans(),
    SIMPLE | TAGGED,
    ACTIONS,
)


@settings(deadline=None)
@given(st.lists(RULE, min_size=1, max_size=4, unique_by=lambda rule: rule.id))
def test_what_is_written_reads_back_as_the_same_rules(rules):
    assert parse(format_lifecycle(tuple(rules))) == tuple(rules)


def test_the_document_that_boto3_sends_is_read():
    body = sent(
        {
            "ID": "one",
            "Status": "Enabled",
            "Filter": {
                "And": {
                    "Prefix": "logs/",
                    "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}],
                    "ObjectSizeGreaterThan": 10,
                    "ObjectSizeLessThan": 20,
                }
            },
            "Expiration": {"Days": 30},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 5, "NewerNoncurrentVersions": 3},
        },
        {
            "Status": "Disabled",
            "Prefix": "old/",
            "Expiration": {"Date": datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
        {"Status": "Enabled", "Filter": {}, "Expiration": {"ExpiredObjectDeleteMarker": True}},
    )
    assert parse(body) == (
        Rule(
            "one",
            True,
            Filter("logs/", (("a", "1"), ("b", "")), 10, 20, "and"),
            expire_days=30,
            noncurrent_days=5,
            newer_noncurrent=3,
        ),
        Rule(
            "new-1",
            False,
            Filter("old/", form="rule-prefix"),
            expire_at_ms=1_893_456_000_000,
            abort_days=7,
        ),
        Rule("new-2", True, Filter(), expire_lone_marker=True),
    )


def test_the_document_that_is_written():
    rules = (
        Rule("a<b", True, Filter("p&/", (("k", "v"),), 1, None, "and"), expire_days=3, abort_days=1),
        Rule("c", False, Filter(), expire_at_ms=0),
        Rule("d", True, Filter("", form="rule-prefix"), noncurrent_days=2, newer_noncurrent=4),
        Rule("e", True, Filter(tags=(("k", ""),)), expire_lone_marker=False),
    )
    assert format_lifecycle(rules).decode() == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        "<Rule><ID>a&lt;b</ID><Filter><And><Prefix>p&amp;/</Prefix><Tag><Key>k</Key><Value>v</Value></Tag>"
        "<ObjectSizeGreaterThan>1</ObjectSizeGreaterThan></And></Filter><Status>Enabled</Status>"
        "<Expiration><Days>3</Days></Expiration><AbortIncompleteMultipartUpload><DaysAfterInitiation>1"
        "</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>"
        "<Rule><ID>c</ID><Filter></Filter><Status>Disabled</Status>"
        "<Expiration><Date>1970-01-01T00:00:00.000Z</Date></Expiration></Rule>"
        "<Rule><ID>d</ID><Prefix></Prefix><Status>Enabled</Status><NoncurrentVersionExpiration>"
        "<NoncurrentDays>2</NoncurrentDays><NewerNoncurrentVersions>4</NewerNoncurrentVersions>"
        "</NoncurrentVersionExpiration></Rule>"
        "<Rule><ID>e</ID><Filter><Tag><Key>k</Key><Value></Value></Tag></Filter><Status>Enabled</Status>"
        "<Expiration><ExpiredObjectDeleteMarker>false</ExpiredObjectDeleteMarker></Expiration></Rule>"
        "</LifecycleConfiguration>"
    )


def filtered(inner: str) -> str:
    return document(xml_rule(head=f"<Filter>{inner}</Filter>"))


def expiration(inner: str) -> str:
    return document(xml_rule(f"<Expiration>{inner}</Expiration>"))


def noncurrent(inner: str) -> str:
    return document(xml_rule(f"<NoncurrentVersionExpiration>{inner}</NoncurrentVersionExpiration>"))


def abort(inner: str, head: str = "<Filter/>") -> str:
    element = f"<AbortIncompleteMultipartUpload>{inner}</AbortIncompleteMultipartUpload>"
    return document(xml_rule(element, head))


TAG_XML = "<Tag><Key>k</Key><Value>v</Value></Tag>"
ONE_DAY = "<DaysAfterInitiation>1</DaysAfterInitiation>"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (document(), "MalformedXML"),
        ("<LifecycleConfiguration><Other/></LifecycleConfiguration>", "MalformedXML"),
        ("<Other/>", "MalformedXML"),
        (document(*[xml_rule()] * 1001), "MalformedXML"),
        (document("<Filter/><Expiration><Days>1</Days></Expiration>"), "MalformedXML"),
        (document(xml_rule().replace("Enabled", "enabled")), "MalformedXML"),
        (document(xml_rule().replace("Enabled", "")), "MalformedXML"),
        (document(xml_rule(head="")), "MalformedXML"),
        (document(xml_rule(head="<Filter/><Prefix/>")), "MalformedXML"),
        (document(xml_rule() + "<Other/>"), "MalformedXML"),
        (document(xml_rule() * 2), "MalformedXML"),
        (document(f"<ID>{'x' * 256}</ID>{xml_rule()}"), "InvalidArgument"),
        (document(*[f"<ID>x</ID>{xml_rule()}"] * 2), "InvalidArgument"),
        (document(xml_rule("")), "InvalidRequest"),
        (document(xml_rule("<Transition><Days>1</Days></Transition>")), "NotImplemented"),
        (document(xml_rule() + "<Transition/>"), "NotImplemented"),
        (document(xml_rule("<NoncurrentVersionTransition/>")), "NotImplemented"),
        (filtered(f"<Prefix>a</Prefix>{TAG_XML}"), "MalformedXML"),
        (filtered(TAG_XML * 2), "MalformedXML"),
        (filtered("<And/>"), "MalformedXML"),
        (filtered("<And><Prefix/><Prefix/></And>"), "MalformedXML"),
        (filtered("<And><And/></And>"), "MalformedXML"),
        (filtered(f"<And>{TAG_XML * 2}</And>"), "InvalidRequest"),
        (filtered("<Tag><Key>k</Key></Tag>"), "MalformedXML"),
        (filtered("<Tag><Key/><Value/></Tag>"), "InvalidTag"),
        (filtered(f"<Tag><Key>{'k' * 129}</Key><Value/></Tag>"), "InvalidTag"),
        (filtered(f"<Tag><Key>k</Key><Value>{'v' * 257}</Value></Tag>"), "InvalidTag"),
        (filtered(f"<Prefix>{'p' * 1025}</Prefix>"), "InvalidRequest"),
        (filtered("<ObjectSizeGreaterThan>-1</ObjectSizeGreaterThan>"), "MalformedXML"),
        (
            filtered(
                "<And><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan><ObjectSizeLessThan>5</ObjectSizeLessThan></And>"
            ),
            "InvalidRequest",
        ),
        (expiration(""), "MalformedXML"),
        (expiration("<Days>0</Days>"), "InvalidArgument"),
        (expiration("<Days>-1</Days>"), "InvalidArgument"),
        (expiration("<Days>1.5</Days>"), "MalformedXML"),
        (expiration("<Days>99999999999</Days>"), "MalformedXML"),
        (expiration("<Days>1</Days><Date>2030-01-01T00:00:00Z</Date>"), "MalformedXML"),
        (
            expiration("<Days>1</Days><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker>"),
            "MalformedXML",
        ),
        (expiration("<ExpiredObjectDeleteMarker>yes</ExpiredObjectDeleteMarker>"), "MalformedXML"),
        (expiration("<Date>2030-01-01T00:00:01Z</Date>"), "InvalidArgument"),
        (expiration("<Date>2030-01-01T00:00:00+01:00</Date>"), "InvalidArgument"),
        (expiration("<Date>2030-01-01T00:00:00.000001Z</Date>"), "InvalidArgument"),
        (expiration("<Date>tomorrow</Date>"), "MalformedXML"),
        (expiration("<Date>1969-12-31T00:00:00Z</Date>"), "MalformedXML"),
        (expiration("<Date>2030-02-29T00:00:00Z</Date>"), "MalformedXML"),
        (
            document(
                xml_rule(
                    "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>",
                    f"<Filter>{TAG_XML}</Filter>",
                )
            ),
            "InvalidRequest",
        ),
        (noncurrent(""), "MalformedXML"),
        (noncurrent("<NewerNoncurrentVersions>1</NewerNoncurrentVersions>"), "MalformedXML"),
        (noncurrent("<NoncurrentDays>0</NoncurrentDays>"), "InvalidArgument"),
        (
            noncurrent(
                "<NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>101</NewerNoncurrentVersions>"
            ),
            "InvalidArgument",
        ),
        (
            noncurrent(
                "<NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>0</NewerNoncurrentVersions>"
            ),
            "InvalidArgument",
        ),
        (abort(""), "MalformedXML"),
        (abort("<DaysAfterInitiation>0</DaysAfterInitiation>"), "InvalidArgument"),
        (abort(ONE_DAY, f"<Filter>{TAG_XML}</Filter>"), "InvalidRequest"),
        (
            abort(ONE_DAY, "<Filter><ObjectSizeLessThan>1</ObjectSizeLessThan></Filter>"),
            "InvalidRequest",
        ),
        ("", "MissingRequestBodyError"),
    ],
)
def test_everything_else_is_refused(body, code):
    with pytest.raises(S3Error) as caught:
        parse(body)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "text", ["2024-02-29", "2024-02-29T00:00:00Z", "2024-02-29T02:00:00+02:00", "20240229"]
)
def test_a_date_is_a_midnight_in_utc(text):
    (rule,) = parse(expiration(f"<Date>{text}</Date>"))
    assert rule.expire_at_ms == 1_709_164_800_000


@given(st.binary(max_size=200))
def test_no_body_raises_anything_but_a_refusal(body):
    with contextlib.suppress(S3Error):
        parse(body)


@given(st.text("<>/RuleIDStatusEnabledFilterPrefix &;\"'=", max_size=200))
def test_no_text_raises_anything_but_a_refusal(text):
    with contextlib.suppress(S3Error):
        parse(document(text))
