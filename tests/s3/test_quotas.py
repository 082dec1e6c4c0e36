"""Quotas over S3: which operations they stop, when, what the client is told; and that no crowd gets past one."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from index import quotas
from index.buckets import get_bucket
from index.counters import statistics
from index.quotas import UNLIMITED, Limits
from index.verify_names import BucketCheck, buckets_of, check_buckets
from tests.s3.conftest import make_caller
from tests.s3.examples import EXAMPLES, Line, by_header, make_place
from tests.s3.forms import form_request, signed_fields
from tests.s3.test_matrix import SIGNED
from tests.s3.wire import UNSIGNED, assert_error
from vaultaire.s3.operation import Operation
from vaultaire.store import Store

# What makes a full bucket fuller, in the examples. All others do what they do elsewhere.
ADDING = {
    Operation.PUT_OBJECT,
    Operation.COPY_OBJECT,
    Operation.CREATE_MULTIPART_UPLOAD,
    Operation.UPLOAD_PART,
    Operation.UPLOAD_PART_COPY,
    Operation.COMPLETE_MULTIPART_UPLOAD,
}
CLIENTS = 64
KIB = 1 << 10


@pytest.fixture(scope="module")
def store(server):
    """The server's own directory, opened beside it: a command per quota would take a second each."""
    with Store.open(server.data, kind="command") as store:
        yield store


@pytest.fixture
def line(root):
    made = Line(root)
    yield made
    made.close()


def limit(store, name, **limits):
    store.kv.commit(lambda txn: quotas.set_bucket_limits(txn, get_bucket(txn, name), Limits(**limits)))


def used(store, name):
    with store.kv.snapshot() as reader:
        bucket = get_bucket(reader, name)
        return None if bucket is None else quotas.bucket_usage(reader, bucket.id)


def fill_up(store, name):
    """Not a byte and not an object more."""
    now = used(store, name)
    limit(store, name, logical_bytes=now.logical_bytes, stored_bytes=now.stored_bytes, objects=now.objects)
    return now


def is_sound(store):
    with store.kv.snapshot() as reader:
        found = list(check_buckets(reader))
        for bucket in buckets_of(reader):
            found += BucketCheck(reader, bucket).run()
    return found == []


# --- which operations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", SIGNED, ids=lambda operation: operation.value)
def test_no_operation_adds_to_a_full_bucket_and_only_adding_is_refused(root, line, store, operation):
    template = EXAMPLES[operation]
    place = make_place(line, root, template)
    before = fill_up(store, place.bucket)
    answer = line.exchange(by_header(root, template.at(place)))
    if operation in ADDING:
        assert_error(answer, 403, "QuotaExceeded")
    else:
        assert answer.status in template.statuses, answer.body
    now = used(store, place.bucket)
    assert now.logical_bytes <= before.logical_bytes
    assert now.stored_bytes <= before.stored_bytes
    assert now.objects <= before.objects


@pytest.mark.parametrize("scope", ["bucket", "tenant"])
def test_a_form_does_not_add_to_a_full_bucket(server, store, root, line, new_key, scope):
    owner = new_key("forms-of-a-full-tenant", "admin")
    bucket = f"forms-into-a-full-{scope}"
    assert owner.call("PUT", f"/{bucket}").status == 200
    if scope == "bucket":
        fill_up(store, bucket)
    else:
        store.kv.commit(
            lambda txn: quotas.set_tenant_limits(txn, "forms-of-a-full-tenant", Limits(logical_bytes=3))
        )
    signed = signed_fields(owner, bucket, {"key": "new"})
    answer = line.exchange(form_request(owner, bucket, signed, b"form"))
    assert_error(answer, 403, "QuotaExceeded")
    assert answer.text("QuotaScope") == scope
    assert owner.call("DELETE", f"/{bucket}").status == 204


def test_a_full_bucket_can_be_emptied_and_overwritten_by_less(s3, store, bucket, root):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for _ in range(3):
        s3.put_object(Bucket=bucket, Key="a", Body=b"four")
    limit(store, bucket, logical_bytes=0, stored_bytes=0, objects=0)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert root.call("PUT", f"/{bucket}/a", body=b"").code == "QuotaExceeded"  # a null version more
    s3.delete_object(Bucket=bucket, Key="a")
    for version in s3.list_object_versions(Bucket=bucket)["Versions"]:
        s3.delete_object(Bucket=bucket, Key="a", VersionId=version["VersionId"])
    assert used(store, bucket).objects == 0
    limit(store, bucket)
    s3.put_object(Bucket=bucket, Key="b", Body=b"null version")
    limit(store, bucket, logical_bytes=0, stored_bytes=0, objects=0)
    s3.put_object(Bucket=bucket, Key="b", Body=b"shorter")
    assert used(store, bucket).logical_bytes == len("shorter")


def test_what_was_uploaded_in_parts_can_be_completed_whatever_the_quota_is_now(s3, store, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="big")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="big", UploadId=upload, PartNumber=1, Body=b"x" * 5000)
    assert used(store, bucket).logical_bytes == 5000
    limit(store, bucket, logical_bytes=1, stored_bytes=1, objects=1)
    s3.complete_multipart_upload(
        Bucket=bucket,
        Key="big",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert used(store, bucket).logical_bytes == 5000


# --- when, and what is said ------------------------------------------------------------------------------------


def test_a_body_that_will_not_fit_is_never_asked_for(root, s3, store, bucket):
    limit(store, bucket, logical_bytes=1000)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="big")["UploadId"]
    expect = (("Expect", "100-continue"),)
    for query in ("", f"partNumber=1&uploadId={upload}"):
        for length, status in ((1001, b"403"), (1000, b"100")):
            request = root.sign(
                "PUT", f"/{bucket}/big", query=query, headers=expect, payload=UNSIGNED, length=length
            )
            with root.connect() as connection:
                connection.send(request.head())
                assert connection.read_line().split()[1] == status


def test_the_answer_has_the_figures_and_the_way_out(root, store, bucket):
    root.call("PUT", f"/{bucket}/a", body=bytes(600))
    limit(store, bucket, logical_bytes=1000)
    answer = assert_error(root.call("PUT", f"/{bucket}/b", body=bytes(500)), 403, "QuotaExceeded")
    figures = [answer.text(name) for name in ("BucketName", "QuotaMeasure", "Quota", "Used", "Requested")]
    assert figures == [bucket, "logical", "1000", "600", "500"]
    message = answer.text("Message")
    assert "may hold 1,000 bytes, holds 600" in message
    assert f"vaultaire bucket quota {bucket}" in message


def test_strangers_are_not_told_how_full_a_bucket_is(root, store, bucket):
    policy = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:PutObject",'
        f'"Resource":"arn:aws:s3:::{bucket}/*"}}]}}'
    )
    assert root.call("PUT", f"/{bucket}", query="policy", body=policy.encode()).status in (200, 204)
    limit(store, bucket, objects=0)
    answer = assert_error(root.anonymous("PUT", f"/{bucket}/b", body=b"x"), 403, "QuotaExceeded")
    assert answer.text("Message") == "The quota of this bucket or of its owner is used up."
    assert b"<Quota>" not in answer.body


def test_stored_bytes_are_those_that_an_upload_adds(root, store, bucket, rng):
    body, other = rng.randbytes(200 * KIB), rng.randbytes(200 * KIB)
    limit(store, bucket, stored_bytes=250 * KIB)
    assert root.call("PUT", f"/{bucket}/a", body=body).status == 200
    assert root.call("PUT", f"/{bucket}/again", body=body).status == 200  # adds nothing
    assert root.call("PUT", f"/{bucket}/zeros", body=bytes(1 << 20)).status == 200  # nearly nothing
    assert root.call("PUT", f"/{bucket}/b", body=other).code == "QuotaExceeded"
    assert used(store, bucket).stored_bytes <= 250 * KIB
    assert root.call("DELETE", f"/{bucket}/a").status == 204
    assert root.call("PUT", f"/{bucket}/b", body=other).status == 200


def test_a_quota_set_by_command_holds_for_the_next_request(server, root, s3, store):
    name = "bucket-limited-by-command"
    server.cli("bucket", "create", name)
    root.call("PUT", f"/{name}/a", body=bytes(10))
    server.cli("bucket", "quota", name, "--logical", "12", "--objects", "7")
    assert root.call("PUT", f"/{name}/b", body=bytes(3)).code == "QuotaExceeded"
    told = json.loads(server.cli("bucket", "quota", name, "--objects", "none", "--json").stdout)
    assert told["quota"] == {"logical_bytes": 12, "stored_bytes": None, "objects": None}
    assert (told["used"]["logical_bytes"], told["used"]["objects"]) == (10, 1)
    server.cli("bucket", "quota", name, "--remove")
    assert root.call("PUT", f"/{name}/b", body=bytes(3)).status == 200
    refused = server.cli("bucket", "delete", name, check=False)
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    server.cli("bucket", "delete", name, "--force")
    assert root.call("HEAD", f"/{name}").status == 404
    assert is_sound(store)


# --- a crowd ---------------------------------------------------------------------------------------------------


def storm(new_server, *, puts, limits, sizes):
    """64 clients put into two buckets of one tenant by 3 workers; (answers, usage of the tenant, of each bucket)."""
    server = new_server(workers=3).start()
    root = make_caller(server)
    names = ("one", "two")
    numbered = list(enumerate(names))
    for name in names:
        assert root.call("PUT", f"/{name}-bucket").status == 200
    with Store.open(server.data, kind="command") as store:
        store.kv.commit(lambda txn: quotas.set_tenant_limits(txn, "root", limits["tenant"]))
        for name in names:
            own = limits.get(name, UNLIMITED)
            store.kv.commit(
                lambda txn, name=name, own=own: quotas.set_bucket_limits(
                    txn, get_bucket(txn, f"{name}-bucket"), own
                )
            )

        def client(number):
            rng = random.Random(number)
            told = []
            with root.connect() as connection:
                for turn in range(puts):
                    which, name = numbered[(number + turn) % 2]
                    size = rng.choice(sizes[which])
                    path = f"/{name}-bucket/{number}-{turn}"
                    request = root.sign("PUT", path, body=rng.randbytes(size))
                    connection.send(request.encode())
                    answer = connection.answer("PUT")
                    told.append((name, size, answer.status, answer.code if answer.status != 200 else ""))
                    if answer.closes:
                        break
            return told

        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = [each for told in pool.map(client, range(CLIENTS)) for each in told]
        with store.kv.snapshot() as reader:
            of_tenant = quotas.tenant_usage(reader, "root")
        of_buckets = {name: used(store, f"{name}-bucket") for name in names}
        with store.kv.snapshot() as reader:
            added = {n: statistics(reader, get_bucket(reader, f"{n}-bucket").id).stored_bytes for n in names}
        assert all(
            limits[name].stored_bytes is None or added[name] <= limits[name].stored_bytes
            for name in names
            if name in limits
        ), added  # by what uploads added; a mark may find some more
        assert is_sound(store)
    assert {(status, code) for _, _, status, code in answers} <= {(200, ""), (403, "QuotaExceeded")}
    taken = [(name, size) for name, size, status, _ in answers if status == 200]
    assert of_tenant.logical_bytes == sum(size for _, size in taken)  # acknowledged is counted, nothing else
    assert of_tenant.objects == len(taken)
    return taken, of_tenant, of_buckets


def test_a_crowd_ends_exactly_at_the_quota(new_server):
    """64 clients, 3 workers: a bucket by number, the other one by the rest of what their tenant may hold."""
    limits = {"tenant": Limits(logical_bytes=400_000), "one": Limits(objects=150)}
    _, tenant, found = storm(new_server, puts=10, limits=limits, sizes=((1000,), (1000,)))
    assert found["one"].objects == 150
    assert found["two"].objects == 250
    assert tenant.logical_bytes == 400_000


@pytest.mark.full
def test_a_crowd_of_all_sizes_never_passes_the_quota(new_server):
    """pytest -m full tests/s3/test_quotas.py: large and small objects, by all three figures (some ten seconds)."""
    limits = {
        "tenant": Limits(logical_bytes=20_000_000, objects=2500),
        "one": Limits(stored_bytes=6_000_000),
        "two": Limits(logical_bytes=9_000_000),
    }
    sizes = (1, 700, 4000, 5000, 70_000)
    _, tenant, found = storm(new_server, puts=60, limits=limits, sizes=(sizes, sizes))
    assert tenant.logical_bytes <= 20_000_000
    assert tenant.objects <= 2500
    assert found["one"].stored_bytes == pytest.approx(6_000_000, rel=0.05)
    assert 0.95 * 9_000_000 <= found["two"].logical_bytes <= 9_000_000
