"""Packs, checkpoint and journal are the truth: without `meta/` the next start has everything back."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cas.adoption import inspect
from cas.packs import LocalPacks
from tests.s3.conftest import make_boto_client, make_caller
from tests.s3.expect import contents_of

MIB = 1 << 20


def fill(s3, rng) -> None:
    """Something of everything that has rows: inline and chunked objects, copies, parts, deletions, open uploads."""
    for bucket in ("one", "two", "empty"):
        s3.create_bucket(Bucket=bucket)
    for n in range(30):
        s3.put_object(Bucket="one", Key=f"small/{n}", Body=rng.randbytes(n * 100), Metadata={"n": str(n)})
    large = rng.randbytes(6 * MIB)
    s3.put_object(Bucket="one", Key="large", Body=large, ChecksumAlgorithm="SHA256", ContentType="text/large")
    s3.put_object(Bucket="two", Key="large again", Body=b"!" + large)
    s3.put_object(Bucket="two", Key="long/" + "ü" * 500, Body=b"long")
    s3.copy_object(Bucket="two", Key="copy", CopySource="one/large")
    upload = s3.create_multipart_upload(Bucket="two", Key="parts")["UploadId"]
    parts = []
    for n, body in enumerate([large[: 5 * MIB], b"tail"], 1):
        etag = s3.upload_part(Bucket="two", Key="parts", UploadId=upload, PartNumber=n, Body=body)["ETag"]
        parts.append({"PartNumber": n, "ETag": etag})
    s3.complete_multipart_upload(Bucket="two", Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
    unfinished = s3.create_multipart_upload(Bucket="two", Key="unfinished")["UploadId"]
    s3.upload_part(Bucket="two", Key="unfinished", UploadId=unfinished, PartNumber=3, Body=b"part three")
    for n in range(0, 30, 3):
        s3.delete_object(Bucket="one", Key=f"small/{n}")
    s3.put_object(Bucket="one", Key="small/1", Body=b"overwritten")
    s3.create_bucket(Bucket="gone")
    s3.delete_bucket(Bucket="gone")


def picture(server) -> dict[str, object]:
    """Everything a client or an operator can see, but for the pages of the database and the journal's length."""
    s3 = make_boto_client(server)
    buckets = s3.list_buckets()["Buckets"]
    seen: dict[str, object] = {"buckets": [(b["Name"], str(b["CreationDate"])) for b in buckets]}
    for bucket in (b["Name"] for b in buckets):
        contents = seen[f"contents of {bucket}"] = contents_of(s3, bucket)
        seen[f"versions of {bucket}"] = s3.list_object_versions(Bucket=bucket).get("Versions")
        seen[f"heads of {bucket}"] = [head(s3, bucket, key) for key in contents]
        uploads = s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        seen[f"uploads of {bucket}"] = uploads
        for upload in uploads:
            where = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
            seen[f"parts of {upload['UploadId']}"] = s3.list_parts(**where)["Parts"]
    seen["keys"] = json.loads(server.cli("key", "list", "--json").stdout)
    for key in seen["keys"]:
        del key["last_used_ms"]
    statistics = json.loads(server.cli("stats", "--json").stdout)
    varying = ("stored_bytes", "overhead_bytes", "compression_ratio", "packs")
    for name in (*varying, "scrub", "verify", "collection", "buckets_counted_ms"):
        statistics.pop(name, None)
    for counted in statistics["buckets"].values():
        del counted["stored_bytes"]
    seen["stats"] = statistics
    s3.close()
    return seen


def head(s3, bucket: str, key: str) -> dict[str, object]:
    answer = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    answer.pop("ResponseMetadata")
    return answer


@pytest.mark.subset
def test_what_was_there_is_there_after_every_end_and_without_meta(new_server, rng):
    with new_server() as server:
        s3 = make_boto_client(server)
        fill(s3, rng)
        key = ("--tenant", "other", "--access-key", "OTHERKEY01", "--secret-key", "12345678")
        server.cli("key", "create", *key)
        s3.close()
        before = picture(server)
        for end, loses_meta in ((server.kill, False), (server.kill, True), (server.stop, True)):
            end()
            if loses_meta:
                shutil.rmtree(server.data / "meta")
            server.start()
            assert picture(server) == before, (end, loses_meta)
        s3 = make_boto_client(server)
        s3.put_object(Bucket="one", Key="new", Body=b"after the rebuild")
        s3.close()


def test_after_a_crash_in_c_the_database_is_rebuilt_once_and_not_again(new_server, rng):
    """LMDB dies of some damaged pages (SIGBUS, SIGSEGV), each time that somebody walks there."""
    with new_server(workers=2) as server:
        caller = make_caller(server)
        body = rng.randbytes(100_000)
        assert caller.call("PUT", "/crashed").status == 200
        assert caller.call("PUT", "/crashed/k", body=body).status == 200

        def crash(number: signal.Signals) -> int:
            """How many workers were replaced."""
            before = set(server.worker_pids())
            gone = server.kill_worker(number=number)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                now = server.worker_pids()
                if len(now) == 2 and gone not in now and answers(caller):
                    break
                time.sleep(0.05)
            assert caller.call("GET", "/crashed/k").body == body
            return len(before - set(server.worker_pids()))

        assert crash(signal.SIGBUS) == 2
        assert "stop all processes, then start all" in server.log_text()
        assert (server.data / "run" / "poisoned.before").read_text().startswith("a process crashed (SIGBUS)")
        assert crash(signal.SIGSEGV) == 1


def answers(caller) -> bool:
    with contextlib.suppress(OSError):
        return caller.call("GET", "/crashed/k").status == 200
    return False


def test_a_lost_secret_key_stops_the_start_and_names_the_way_out(new_server):
    server = new_server()
    with server:
        pass
    (server.data / "secret.key").rename(server.data.parent / "secret.key.lost")
    with pytest.raises(RuntimeError, match="key create"):
        server.start()
    (server.data.parent / "secret.key.lost").rename(server.data / "secret.key")
    with server:
        assert server.alive()


def test_new_root_keys_in_the_environment_replace_the_old_ones(new_server):
    server = new_server()
    with server:
        s3 = make_boto_client(server)
        s3.create_bucket(Bucket="mine")
        s3.close()
        server.stop()
        server.access_key, server.secret_key = (
            "ANOTHERROOT000000001",
            "another-secret-key-for-root-0000000000001",
        )
        server.start()
        s3 = make_boto_client(server)
        assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == ["mine"]
        s3.close()


def test_without_its_identity_a_store_is_refused_and_comes_back_by_rebuild(new_server, rng):
    server = new_server()
    with server:
        s3 = make_boto_client(server)
        fill(s3, rng)
        s3.close()
        before = picture(server)
        busy = server.cli("rebuild", check=False)
        assert busy.returncode == 1
        assert "stop the server" in busy.stderr
        server.kill()
    (server.data / "store.json").unlink()
    with pytest.raises(RuntimeError, match="--identity-from-packs"):
        server.start()
    shutil.rmtree(server.data / "meta")
    server.cli("rebuild", "--identity-from-packs")
    with server:
        assert picture(server) == before


def test_small_uploads_that_share_frames_survive_a_kill_and_a_rebuild(new_server, rng):
    bodies = {f"small/{n}": rng.randbytes(6000) for n in range(96)}  # a chunk each
    server = new_server()
    with server:
        s3 = make_boto_client(server)
        s3.create_bucket(Bucket="many")
        with ThreadPoolExecutor(16) as clients:
            list(clients.map(lambda key: s3.put_object(Bucket="many", Key=key, Body=bodies[key]), bodies))
        server.kill()
    packs = LocalPacks(server.data / "packs")
    frames = [frame.header for pack in packs.packs() for frame in inspect(packs, pack).frames]
    packs.close()
    assert sum(len(frame.ids) for frame in frames) == len(bodies)
    assert len(frames) < len(bodies)
    shutil.rmtree(server.data / "meta")
    with server:
        for key, body in bodies.items():
            assert s3.get_object(Bucket="many", Key=key)["Body"].read() == body
        s3.close()
