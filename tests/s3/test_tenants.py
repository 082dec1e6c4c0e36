"""Access keys, tenants and roles: who may do what to whose buckets. Keys are made by the command line, on the live store."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.s3.conftest import SECRET, new_bucket_name
from tests.s3.keys import delete_key
from tests.s3.wire import assert_error


def buckets_of(caller) -> list[str]:
    answer = caller.call("GET", "/")
    assert answer.status == 200
    return answer.texts("Name")


@pytest.mark.subset
def test_a_tenant_sees_and_reaches_only_its_own_buckets(root, new_key):
    one, two = new_key("tenant-one"), new_key("tenant-two")
    names = [new_bucket_name(hint) for hint in ("of-one", "of-two")]
    for caller, name in zip((one, two), names, strict=True):
        assert caller.call("PUT", f"/{name}").status == 200
        assert caller.call("PUT", f"/{name}/k", body=name.encode()).status == 200
    assert names[0] in buckets_of(one)
    assert names[1] not in buckets_of(one)
    assert not {*names} & {*buckets_of(root)}, "ListBuckets shows the caller's own tenant, also to root"
    for method, path, query in (
        ("GET", "", ""),
        ("GET", "", "list-type=2"),
        ("GET", "", "uploads"),
        ("GET", "/k", ""),
        ("PUT", "/k", ""),
        ("PUT", "/new", ""),
        ("DELETE", "/k", ""),
        ("DELETE", "", ""),
        ("POST", "/k", "uploads"),
        ("GET", "/missing", ""),
        ("GET", "", "location"),
    ):
        assert_error(two.call(method, f"/{names[0]}{path}", query=query), 403, "AccessDenied")
    assert two.call("HEAD", f"/{names[0]}").status == 403
    assert root.call("GET", f"/{names[0]}/k").body == names[0].encode()


def test_a_bucket_name_is_taken_for_every_tenant(new_key):
    one, two = new_key("tenant-one"), new_key("tenant-two")
    name = new_bucket_name("global")
    assert one.call("PUT", f"/{name}").status == 200
    assert_error(two.call("PUT", f"/{name}"), 409, "BucketAlreadyExists")


def test_a_copy_may_not_read_another_tenants_bucket(new_key):
    one, two = new_key("tenant-one"), new_key("tenant-two")
    names = [new_bucket_name(hint) for hint in ("source", "target")]
    one.call("PUT", f"/{names[0]}")
    two.call("PUT", f"/{names[1]}")
    one.call("PUT", f"/{names[0]}/secret", body=b"secret")
    source = [("x-amz-copy-source", f"{names[0]}/secret")]
    assert_error(two.call("PUT", f"/{names[1]}/stolen", headers=source), 403, "AccessDenied")
    upload = two.call("POST", f"/{names[1]}/stolen", query="uploads").text("UploadId")
    query = f"partNumber=1&uploadId={upload}"
    assert_error(two.call("PUT", f"/{names[1]}/stolen", query=query, headers=source), 403, "AccessDenied")
    assert two.call("HEAD", f"/{names[1]}/stolen").status == 404


@pytest.mark.subset
def test_a_read_only_key_reads_and_changes_nothing(new_key):
    writer, reader = new_key("tenant-one"), new_key("tenant-one", "read-only")
    name = new_bucket_name("read-only")
    writer.call("PUT", f"/{name}")
    writer.call("PUT", f"/{name}/k", body=b"kept")
    upload = writer.call("POST", f"/{name}/mp", query="uploads").text("UploadId")
    assert reader.call("GET", f"/{name}/k").body == b"kept"
    assert reader.call("HEAD", f"/{name}/k").status == 200
    assert reader.call("GET", f"/{name}").texts("Key") == ["k"]
    assert name in buckets_of(reader)
    delete = b"<Delete><Object><Key>k</Key></Object></Delete>"
    for method, path, query, headers, body in (
        ("PUT", "/k", "", [], b"x"),
        ("PUT", "/copy", "", [("x-amz-copy-source", f"{name}/k")], b""),
        ("DELETE", "/k", "", [], b""),
        ("POST", "", "delete", [], delete),
        ("POST", "/k2", "uploads", [], b""),
        ("PUT", "/mp", f"partNumber=1&uploadId={upload}", [], b"x"),
        ("DELETE", "/mp", f"uploadId={upload}", [], b""),
        ("DELETE", "", "", [], b""),
    ):
        answer = reader.call(method, f"/{name}{path}", query=query, headers=headers, body=body)
        assert_error(answer, 403, "AccessDenied")
    assert_error(reader.call("PUT", f"/{new_bucket_name('of-a-reader')}"), 403, "AccessDenied")
    assert writer.call("GET", f"/{name}").texts("Key") == ["k"]


def test_an_admin_is_admin_of_its_own_tenant_only(root, new_key):
    admin = new_key("tenant-one", "admin")
    name = new_bucket_name("of-root")
    root.call("PUT", f"/{name}")
    assert_error(admin.call("GET", f"/{name}"), 403, "AccessDenied")
    assert name not in buckets_of(admin)


def test_a_key_holds_from_the_moment_it_is_made_until_it_is_deleted(server, new_key):
    caller = new_key("tenant-one")
    assert caller.call("GET", "/").status == 200
    delete_key(server, caller.access_key)
    for _ in range(6):  # whichever worker answers
        assert_error(caller.call("GET", "/"), 403, "InvalidAccessKeyId")


def test_an_open_connection_does_not_outlive_its_key(server, new_key):
    caller = new_key("tenant-one")
    with caller.connect() as connection:
        connection.send(caller.sign("GET", "/").encode())
        assert connection.answer().status == 200
        delete_key(server, caller.access_key)
        connection.send(caller.sign("GET", "/").encode())
        assert_error(connection.answer(), 403, "InvalidAccessKeyId")


def test_a_key_with_another_secret_is_refused(new_key):
    caller = new_key("tenant-one")
    impostor = replace(caller, secret_key=SECRET + "x")
    assert_error(impostor.call("GET", "/"), 403, "SignatureDoesNotMatch")


def test_key_list_shows_keys_and_no_secret(server, new_key):
    caller = new_key("tenant-one", "read-only")
    listed = server.cli("key", "list").stdout
    assert caller.access_key in listed
    assert SECRET not in listed
    assert server.secret_key not in listed


def test_the_last_root_key_cannot_be_deleted(server, root):
    done = server.cli("key", "delete", server.access_key, check=False)
    assert done.returncode != 0
    assert root.call("GET", "/").status == 200


@pytest.mark.subset
def test_stats_count_objects_and_bytes_per_bucket(server, root, new_key):
    caller = new_key("tenant-one")
    name = new_bucket_name("counted")
    before = server.stats()
    caller.call("PUT", f"/{name}")
    caller.call("PUT", f"/{name}/a", body=b"x" * 1000)
    caller.call("PUT", f"/{name}/b", body=b"y" * 100_000)
    caller.call("PUT", f"/{name}/b", body=b"z" * 50_000)
    caller.call("DELETE", f"/{name}/a")
    after = server.stats()
    assert after["objects"] - before["objects"] == 1
    assert after["logical_bytes"] - before["logical_bytes"] == 50_000
    bucket = json.loads(server.cli("stats", "--json").stdout)["buckets"][name]
    assert (bucket["objects"], bucket["logical_bytes"]) == (1, 50_000)
