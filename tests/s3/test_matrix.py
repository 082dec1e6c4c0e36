"""Every operation x every form of authentication x one thing wrong: the right refusal, and nothing has changed.

Generated from the table of operations, so that a new one cannot be forgotten. The state is compared as clients see
it: all buckets, and of the place that an operation works in its versions, uploads, parts and every configuration.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import replace

import pytest

from tests.s3.conftest import make_caller
from tests.s3.examples import EXAMPLES, FORMS, PROBE, Line, by_header, make_place, without_proof
from tests.s3.forms import form_request, signed_fields
from tests.s3.wire import crc32
from vaultaire.s3.operation import BUCKET, OBJECT, Operation
from vaultaire.s3.operations import OPERATIONS

SECRET = "a-secret-for-the-tests-of-the-matrix-01"
BUILT = sorted(OPERATIONS, key=lambda operation: operation.value)
SIGNED = [op for op in BUILT if op not in (Operation.POST_OBJECT, Operation.CORS_PREFLIGHT)]
HOUR = datetime.timedelta(hours=1)


def test_every_operation_that_is_built_has_an_example():
    assert {op.value for op in OPERATIONS} - {op.value for op in EXAMPLES} == set()


# -- what is done to a request: (name, how, the statuses that are right)


def _flip_signature(request):
    def flip(match: re.Match[str]) -> str:
        return match[1] + ("0" if match[2] != "0" else "1")

    headers = [
        (name, re.sub(r"(Signature=[0-9a-f]{63})(.)", flip, value) if name == "Authorization" else value)
        for name, value in request.headers
    ]
    target = re.sub(r"(X-Amz-Signature=[0-9a-f]{63})(.)", flip, request.target)
    return replace(request, headers=tuple(headers), target=target)


def _change_path(request):
    path, mark, query = request.target.partition("?")
    return replace(request, target=f"{path}x{mark}{query}")


def _change_query(request):
    joined = "&" if "?" in request.target else "?"
    return replace(request, target=f"{request.target}{joined}x-id=Changed")


def _change_header(request):
    return request.with_header(PROBE[0], "b")


def _remove_header(request):
    return request.with_header(PROBE[0], None)


def _add_header(request):
    return request.with_header("x-amz-meta-added", "unsigned")


MUTATIONS = {
    "signature byte flipped": (_flip_signature, 403),
    "path changed": (_change_path, 403),
    "query changed": (_change_query, 403),
    "signed header changed": (_change_header, 403),
    "signed header removed": (_remove_header, 403),
    "x-amz header added": (_add_header, 403),
}


def _flip_body(request, example):
    at = request.body.index(example.data)
    body = bytearray(request.body)
    body[at + len(example.data) // 2] ^= 1
    return replace(request, body=bytes(body))


def mutated(caller, example):
    """(what is wrong, the request, the status that is right) of every wrong request for the example."""
    for form, make in FORMS.items():
        if "chunks" in form or "trailer" in form:
            if not example.body:
                continue
            flipped = {"signed chunks": 403, "unsigned trailer": 400}[form]
        else:
            flipped = 400
        for name, (change, status) in MUTATIONS.items():
            yield f"{form}: {name}", change(make(caller, example)), status
        now = datetime.datetime.now(datetime.UTC)
        yield f"{form}: an hour late", make(caller, example, now - HOUR), 403
        yield f"{form}: an hour early", make(caller, example, now + HOUR), 403
        yield f"{form}: wrong region", make(replace(caller, region="eu-west-9"), example), 400
        yield f"{form}: wrong service", make(replace(caller, service="iam"), example), 400
        yield f"{form}: wrong secret", make(replace(caller, secret_key=SECRET), example), 403
        yield f"{form}: unknown key", make(replace(caller, access_key="NOSUCHKEY1"), example), 403
        if example.body and form != "presigned":  # whose body is signed by nobody
            yield f"{form}: body byte flipped", _flip_body(make(caller, example), example), flipped
    if example.body:
        wrong = replace(example, headers=(*example.headers, ("x-amz-checksum-crc32", crc32(b"other"))))
        if example.query.startswith("uploadId="):  # of the object, not of the body
            return
        yield "presigned: another body", FORMS["presigned"](caller, wrong), 400


# -- who may not


@pytest.fixture(scope="module")
def others(server):
    """Callers that may not: of another tenant, and one that may only read."""

    def new_key(tenant: str, role: str, access_key: str):
        server.cli(
            *("key", "create", "--tenant", tenant, "--role", role),
            *("--access-key", access_key, "--secret-key", SECRET),
        )
        return make_caller(server, access_key, SECRET)

    return new_key("elsewhere", "admin", "MATRIXOTHER01"), new_key("root", "read-only", "MATRIXREADER1")


@pytest.fixture
def line(root):
    made = Line(root)
    yield made
    made.close()


_VOLATILE = re.compile(rb"<(RequestId|HostId)>[^<]*</")


def fingerprint(line, root, place):
    """Everything that a client can see of the store's names and of this place."""
    wanted = [
        ("/", ""),
        (f"/{place.bucket}", "versions"),
        (f"/{place.empty}", "versions"),
        (f"/{place.bucket}", ""),
    ]
    wanted += [
        (f"/{place.bucket}", name) for name, method in BUCKET if method == "GET" and name != "versions"
    ]
    wanted += [(f"/{place.bucket}/kept", name) for name, method in OBJECT if method == "GET"]
    wanted += [(f"/{place.bucket}/kept", ""), (f"/{place.bucket}/part", f"uploadId={place.upload}")]
    seen = {}
    answers = line.exchange_all([root.sign("GET", path, query=query) for path, query in wanted])
    for (path, query), answer in zip(wanted, answers, strict=True):
        assert answer.status < 500 or answer.status == 501, (path, query, answer)
        seen[path, query] = (
            answer.status,
            _VOLATILE.sub(b"", answer.body),
            answer.headers.get("x-amz-meta-probe"),
        )
    return seen


def _means_post_object(example, place) -> bool:
    """Whether a POST to this address is what a form is for."""
    return example.path == f"/{place.bucket}" and example.query.partition("=")[0] not in {
        n for n, _ in BUCKET
    }


@pytest.mark.subset
@pytest.mark.parametrize("operation", SIGNED, ids=lambda operation: operation.value)
def test_matrix(root, line, others, operation):
    template = EXAMPLES[operation]
    place = make_place(line, root, template)
    example = template.at(place)
    before = fingerprint(line, root, place)
    wrong = []

    def refuse(what, request, *statuses):
        answer = line.exchange(request)
        if answer.status not in statuses:
            wrong.append((what, answer.status, answer.code, statuses))

    for what, request, status in mutated(root, example):
        refuse(what, request, status)
    refuse("anonymous", without_proof(root, example), 403)
    stranger, reader = others
    for form, make in FORMS.items():
        if ("chunks" in form or "trailer" in form) and not example.body:
            continue
        if operation is Operation.CREATE_BUCKET:  # anybody may, so the reader alone is refused
            pass
        elif operation is Operation.LIST_BUCKETS:
            assert place.bucket.encode() not in line.exchange(make(stranger, example)).body
        else:
            refuse(f"{form}: another tenant", make(stranger, example), 403)
        if OPERATIONS[operation].writes:
            refuse(f"{form}: read-only key", make(reader, example), 403)
    if not _means_post_object(example, place):
        signed = signed_fields(root, place.bucket, {"key": "by-form"})
        target = f"{example.path}?{example.query}" if example.query else example.path
        refuse(
            "a form", form_request(root, place.bucket, signed, b"x", target=target), 400, 403, 404, 405, 501
        )
    assert wrong == []
    assert fingerprint(line, root, place) == before
    # The same request with nothing wrong is done: the refusals above were for what was wrong.
    done = line.exchange(by_header(root, example))
    assert done.status in template.statuses, (done.status, done.body)


# -- the one operation whose proof is in its body

FORM_MUTATIONS = {
    "signature byte flipped": (lambda f: {**f, "x-amz-signature": f["x-amz-signature"][:-1] + "x"}, 403),
    "policy byte flipped": (lambda f: {**f, "policy": "f" + f["policy"][1:]}, 403),
    "field changed": (lambda f: {**f, "key": "elsewhere"}, 403),
    "field removed": (lambda f: {n: v for n, v in f.items() if n != "x-amz-meta-a"}, 403),
    "field added": (lambda f: {**f, "x-amz-meta-b": "b"}, 403),
    "date changed": (lambda f: {**f, "x-amz-date": f["x-amz-date"][:-2] + "xZ"}, 400),
    "date of another day": (lambda f: {**f, "x-amz-date": "20200101T000000Z"}, 400),
    "signature removed": (lambda f: {n: v for n, v in f.items() if n != "x-amz-signature"}, 400),
    "policy removed": (lambda f: {n: v for n, v in f.items() if n != "policy"}, 400),
    "nothing proven": (lambda f: {"key": f["key"]}, 403),
}


@pytest.mark.subset
def test_matrix_of_forms(root, line, others):
    place = make_place(line, root, EXAMPLES[Operation.POST_OBJECT])
    fields = {"key": "by-form", "x-amz-meta-a": "a"}
    before = fingerprint(line, root, place)
    wrong = []

    def refuse(what, status, signed, file=b"the file", bucket=place.bucket):
        answer = line.exchange(form_request(root, bucket, signed, file))
        if answer.status != status:
            wrong.append((what, answer.status, answer.code, status))

    for what, (change, status) in FORM_MUTATIONS.items():
        refuse(what, status, change(signed_fields(root, place.bucket, fields)))
    refuse("another bucket", 403, signed_fields(root, place.bucket, fields), bucket=place.empty)
    refuse("another bucket's policy", 403, signed_fields(root, place.empty, fields))
    refuse("expired", 403, signed_fields(root, place.bucket, fields, expires_seconds=-1))
    for region, service in (("eu-west-9", "s3"), ("us-east-1", "iam")):
        refuse(
            f"{region} {service}",
            400,
            signed_fields(root, place.bucket, fields, region=region, service=service),
        )
    for caller, status in (
        (others[0], 403),
        (others[1], 403),
        (replace(root, secret_key=SECRET), 403),
        (replace(root, access_key="NOSUCHKEY1"), 403),
    ):
        refuse(f"key {caller.access_key}", status, signed_fields(caller, place.bucket, fields))
    checked = fields | {"x-amz-checksum-crc32": crc32(b"the file")}
    refuse("file byte flipped", 400, signed_fields(root, place.bucket, checked), b"the fila")
    bounded = signed_fields(root, place.bucket, fields, more_conditions=[["content-length-range", 1, 7]])
    refuse("a byte too long", 400, bounded)
    for make in FORMS.values():  # a signed request is no form, and a signed form has two proofs
        answer = line.exchange(make(root, EXAMPLES[Operation.POST_OBJECT].at(place)))
        if answer.status != 400:
            wrong.append(("signed request", answer.status, answer.code, 400))
    assert wrong == []
    assert fingerprint(line, root, place) == before
    done = line.exchange(
        form_request(root, place.bucket, signed_fields(root, place.bucket, checked), b"the file")
    )
    assert done.status == 204
