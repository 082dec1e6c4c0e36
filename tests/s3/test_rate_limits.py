"""Plans over S3: SlowDown with retry-after, exact among workers, for keys, tenants and anonymous readers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.s3.conftest import make_caller
from tests.s3.forms import form_request, signed_fields

SECRET = "a-secret-for-the-tests-of-rate-limits1"


def new_key(server, tenant, name):
    server.cli("key", "create", "--tenant", tenant, "--access-key", name, "--secret-key", SECRET)
    return make_caller(server, name, SECRET)


def statuses(caller, count, path="/"):
    with caller.connect() as connection:
        found = []
        for _ in range(count):
            connection.send(caller.sign("GET", path).encode())
            found.append(connection.answer("GET").status)
    return found


def test_a_limited_key_is_told_to_slow_down(server, bucket):
    caller = new_key(server, "limited", "LIMITED01")
    server.cli("key", "limit", "LIMITED01", "--requests", "5")
    assert statuses(caller, 8) == [200] * 5 + [503] * 3
    refused = caller.call("GET", "/")
    assert refused.code == "SlowDown"
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    wrong = make_caller(server, "LIMITED01", "another-secret-altogether")
    assert wrong.call("GET", "/").code == "SignatureDoesNotMatch"
    server.cli("key", "limit", "LIMITED01", "--remove")
    assert statuses(caller, 8) == [200] * 8


def test_keys_of_a_tenant_share_its_limit(server):
    one, other = new_key(server, "sharing", "SHARING01"), new_key(server, "sharing", "SHARING02")
    server.cli("key", "limit", "--tenant", "sharing", "--requests", "6")
    assert statuses(one, 4) + statuses(other, 4) == [200] * 6 + [503] * 2
    assert "tenant/sharing" in server.cli("key", "limit").stdout


def test_nobody_uses_up_the_minute_of_another(server):
    caller = new_key(server, "victim", "VICTIM01")
    server.cli("key", "limit", "VICTIM01", "--requests", "3")
    forger = make_caller(server, "VICTIM01", "not-its-secret-at-all")
    assert set(statuses(forger, 10)) == {403}
    assert statuses(caller, 4) == [200] * 3 + [503]


def test_bytes_are_limited_both_ways(server):
    caller = new_key(server, "slow", "SLOWLY01")
    assert caller.call("PUT", "/slow-bucket-of-bytes").status == 200
    server.cli("key", "limit", "SLOWLY01", "--bandwidth", "1k")
    assert caller.call("PUT", "/slow-bucket-of-bytes/a", body=bytes(20_000)).status == 200
    refused = caller.call("GET", "/slow-bucket-of-bytes/a")
    assert refused.code == "SlowDown"
    assert 10 <= int(refused.headers["retry-after"]) <= 21


def test_the_bytes_of_a_form_count_for_who_signed_it(server):
    caller = new_key(server, "forms", "FORMS01")
    name = "bucket-of-slow-forms"
    assert caller.call("PUT", f"/{name}").status == 200
    server.cli("key", "limit", "FORMS01", "--bandwidth", "1k")
    form = form_request(caller, name, signed_fields(caller, name, {"key": "a"}), bytes(20_000))
    with caller.connect() as connection:
        connection.send(form.encode())
        assert connection.answer("POST").status == 204
    refused = caller.call("GET", f"/{name}/a")
    assert refused.code == "SlowDown"
    assert 10 <= int(refused.headers["retry-after"]) <= 21


def test_anonymous_readers_count_for_the_tenant_of_the_bucket(server):
    caller = new_key(server, "public", "PUBLIC01")
    name = "bucket-read-by-everybody"
    assert caller.call("PUT", f"/{name}").status == 200
    assert caller.call("PUT", f"/{name}/a", body=b"a").status == 200
    policy = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject",'
        f'"Resource":"arn:aws:s3:::{name}/*"}}]}}'
    )
    assert caller.call("PUT", f"/{name}", query="policy", body=policy.encode()).status in (200, 204)
    server.cli("key", "limit", "--tenant", "public", "--requests", "4")
    assert [caller.anonymous("GET", f"/{name}/a").status for _ in range(6)] == [200] * 4 + [503] * 2


@pytest.mark.parametrize("wrong", [["--requests", "5"], ["NOSUCHKEY", "--requests", "5"], ["--tenant", "t"]])
def test_a_limit_of_nobody_or_of_nothing_is_refused(server, wrong):
    with pytest.raises(Exception, match=r"limit|key"):
        server.cli("key", "limit", *wrong)


def test_the_servers_plan_holds_for_tenants_and_not_for_root(new_server):
    """64 parallel clients and 3 workers, within 5 %."""
    server = new_server("--plan", "stored.ge", workers=3).start()
    tenant = new_key(server, "customer", "CUSTOMER01")
    began = time.monotonic()
    with ThreadPoolExecutor(64) as pool:
        found = [status for done in pool.map(lambda _: statuses(tenant, 20), range(64)) for status in done]
    minutes = 1 + int((time.monotonic() - began) / 60)  # a busy machine may take more than one
    assert set(found) <= {200, 503}
    assert min(1000, len(found)) <= found.count(200) <= 1050 * minutes
    assert minutes > 1 or 503 in found
    assert set(statuses(make_caller(server), 20)) == {200}
