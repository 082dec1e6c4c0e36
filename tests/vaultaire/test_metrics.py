"""Metrics: what is counted, by whom it is shown, in which form, and who may read it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from index.buckets import create_bucket, get_bucket
from vaultaire.access import Keyring, new_principal, new_root
from vaultaire.bucket_writes import Writes, add_writes
from vaultaire.collection_report import BUCKETS_SUBJECT, SUBJECT
from vaultaire.key_limits import Limits, Scope
from vaultaire.metrics.families import COUNTED, FAMILIES, REQUESTS, SECONDS, SECONDS_BOUNDS
from vaultaire.metrics.figures import Figures, collect
from vaultaire.metrics.labels import OTHER, BucketLabels
from vaultaire.metrics.page import BadToken, MetricsPage, may_read_metrics, read_token
from vaultaire.metrics.requests import RequestMetrics, split
from vaultaire.metrics.slots import Slot, read_slots, total
from vaultaire.metrics.text import Histogram, render, wants_openmetrics
from vaultaire.parity import SUBJECT as PARITY_SUBJECT
from vaultaire.reports import put_report
from vaultaire.s3.observation import Observation
from vaultaire.s3.operation import Operation
from vaultaire.scrub import SUBJECT as SCRUB_SUBJECT
from vaultaire.store import Store

ROOT = Path(__file__).resolve().parents[2]
NOW_MS = 1_790_000_000_000


class FoundBucket:
    def __init__(self, name, number=1):
        self.name, self.id = name, number


def request(bucket=None, /, *, operation=Operation.PUT_OBJECT, status=200, seconds=0.002, **more):
    seen = Observation({"client": ("10.0.0.1", 1), "headers": []}, "0123456789ABCDEF")
    seen.operation, seen.status, seen.found = operation, status, bucket
    seen.ended = seen.started + seconds
    for name, value in more.items():
        setattr(seen, name, value)
    return seen


def samples_of(directory):
    return split(total(read_slots(directory)))[0]


def lint(text, *, openmetrics=False):
    """What promtool check metrics complains about; the families by name."""
    parse = (
        openmetrics_parser.text_string_to_metric_families if openmetrics else text_string_to_metric_families
    )
    families = {}
    lines = text.splitlines()
    for family in parse(text):
        assert family.name not in families, "one family, one block"
        families[family.name] = family
        assert family.documentation, family.name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert not re.search(r"(milli|micro|nano)seconds|kilobytes|megabytes|minutes|hours", family.name)
        assert not family.name.endswith(("_count", "_sum", "_bucket", "_total", "_gauge", "_counter"))
        seen = set()
        for sample in family.samples:
            assert all(re.fullmatch(r"[a-z_]+", label) for label in sample.labels)
            identity = (sample.name, tuple(sorted(sample.labels.items())))
            assert identity not in seen, f"twice: {identity}"
            seen.add(identity)
            assert family.type != "counter" or sample.name.endswith("_total")
    for family in families.values():
        suffix = "_total" if family.type == "counter" and not openmetrics else ""
        assert sum(line.startswith(f"# HELP {family.name}{suffix} ") for line in lines) == 1
        assert sum(line.startswith(f"# TYPE {family.name}{suffix} ") for line in lines) == 1
    return families


# --- slots ---------------------------------------------------------------------------------------------------------


def test_counts_outlive_their_process_and_its_successor_goes_on(tmp_path):
    first = Slot(tmp_path, "worker")
    first.words[first.find(("a_total", "x"))] += 3
    first.close()
    assert total(read_slots(tmp_path)) == {("a_total", "x"): (3,)}
    second = Slot(tmp_path, "worker")
    second.words[second.find(("a_total", "x"))] += 4
    second.words[second.find(("b_total",), 2) + 1] += 5
    assert total(read_slots(tmp_path)) == {("a_total", "x"): (7,), ("b_total",): (0, 5)}
    assert len(list(tmp_path.iterdir())) == 1
    second.close()


def test_what_a_killed_process_left_half_written_counts_for_nothing(tmp_path):
    first = Slot(tmp_path, "worker")
    first.words[first.find(("a_total",))] += 3
    first.close()
    path = tmp_path / "metrics.worker.0"
    data = bytearray(path.read_bytes())
    used = int.from_bytes(data[8:16], "little")
    data[used : used + 200] = b"\xff" * 200
    path.write_bytes(data)
    second = Slot(tmp_path, "worker")
    second.find(("b_total",), 3)
    assert total(read_slots(tmp_path)) == {("a_total",): (3,), ("b_total",): (0, 0, 0)}
    second.close()


def test_living_processes_have_files_of_their_own_and_are_added_up(tmp_path):
    slots = [Slot(tmp_path, kind) for kind in ("worker", "worker", "maintenance")]
    for slot in slots:
        slot.words[slot.find(("a_total",))] += 1
    assert total(read_slots(tmp_path)) == {("a_total",): (3,)}
    assert {(r.kind, r.number, r.alive) for r in read_slots(tmp_path)} == {
        ("worker", 0, True),
        ("worker", 1, True),
        ("maintenance", 0, True),
    }
    slots[1].close()
    assert [r.alive for r in read_slots(tmp_path) if r.kind == "worker"] == [True, False]
    for slot in slots:
        slot.close()


@given(st.binary(max_size=300), st.integers(0, 400))
def test_a_file_of_anything_is_read_without_harm_and_begun_anew(tmp_path_factory, data, used):
    directory = tmp_path_factory.mktemp("run")
    head = b"VltaNum1" + used.to_bytes(8, "little") + bytes(48)
    (directory / "metrics.worker.0").write_bytes(head + data)
    before = total(read_slots(directory))
    slot = Slot(directory, "worker", size=4096)
    place = slot.find(("fresh_total",))
    slot.words[place] += 1
    after = total(read_slots(directory))
    slot.close()
    assert after == {**before, ("fresh_total",): (1,)} or ("fresh_total",) in before


def test_a_full_file_keeps_room_for_what_has_no_name_and_never_grows(tmp_path):
    slot = Slot(tmp_path, "worker", size=4096)
    made = 0
    while slot.find(("a_total", f"{made:040}"), spare=1024) is not None:
        made += 1
    assert made > 10
    assert slot.find(("b_total", "x")) is not None
    while slot.find(("a_total", f"{made:040}")) is not None:
        made += 1
    assert (tmp_path / "metrics.worker.0").stat().st_size == 4096
    assert len(total(read_slots(tmp_path))) == made + 1
    slot.close()


def test_without_a_place_for_the_file_a_process_counts_for_itself(tmp_path):
    slot = Slot(tmp_path / "missing", "worker")
    place = slot.find(("a_total",))
    slot.words[place] += 1
    assert slot.words[place] == 1
    slot.close()


# --- labels --------------------------------------------------------------------------------------------------------


def test_so_many_buckets_have_a_label_and_the_same_ones_everywhere(tmp_path):
    one, other = BucketLabels(tmp_path, 2), BucketLabels(tmp_path, 2)
    assert [one.label("aaa"), other.label("bbb"), one.label("ccc")] == ["aaa", "bbb", OTHER]
    assert [other.label(name) for name in ("aaa", "bbb", "ccc")] == ["aaa", "bbb", OTHER]
    assert BucketLabels(tmp_path, 0).label("aaa") == OTHER
    assert (tmp_path / "metrics.buckets").read_text() == "aaa\nbbb\n"


# --- counting ------------------------------------------------------------------------------------------------------


@pytest.fixture
def metrics(tmp_path):
    slot = Slot(tmp_path, "worker")
    yield RequestMetrics(slot, BucketLabels(tmp_path, 2))
    slot.close()


def test_requests_bytes_errors_and_limits_are_counted(metrics, tmp_path):
    bucket = FoundBucket("photos")
    for _ in range(2):
        metrics.observe(request(bucket, bytes_in=10))
    metrics.observe(request(bucket, operation=Operation.GET_OBJECT, bytes_out=7))
    metrics.observe(request(bucket, status=503, code="SlowDown", refused="rate"))
    metrics.dropped("access", 4)
    assert samples_of(tmp_path) == {
        (REQUESTS, "PutObject", "photos", "200"): 2,
        (REQUESTS, "GetObject", "photos", "200"): 1,
        (REQUESTS, "PutObject", "photos", "503"): 1,
        ("vaultaire_s3_bytes_total", "in", "photos"): 20,
        ("vaultaire_s3_bytes_total", "out", "photos"): 7,
        ("vaultaire_s3_errors_total", "SlowDown"): 1,
        ("vaultaire_s3_refused_total", "rate"): 1,
        ("vaultaire_log_dropped_lines_total", "access"): 4,
    }


def test_a_bucket_that_is_none_and_an_unknown_operation_make_no_label(metrics, tmp_path):
    seen = request(None, operation=None, status=403, bucket="a-strangers-invention", key=b"secret-key")
    metrics.observe(seen)
    assert samples_of(tmp_path) == {(REQUESTS, "Unknown", "", "403"): 1}


def test_buckets_beyond_the_limit_share_a_label(metrics, tmp_path):
    for number in range(50):
        metrics.observe(request(FoundBucket(f"bucket-{number}"), bytes_in=1))
    found = samples_of(tmp_path)
    assert found[REQUESTS, "PutObject", OTHER, "200"] == 48
    assert found["vaultaire_s3_bytes_total", "in", OTHER] == 48
    assert len([key for key in found if key[0] == REQUESTS]) == 3


@given(st.lists(st.floats(0, 400), min_size=1, max_size=30))
def test_histograms_say_how_many_took_how_long(tmp_path_factory, times):
    directory = tmp_path_factory.mktemp("run")
    slot = Slot(directory, "worker", size=8192)
    metrics = RequestMetrics(slot, BucketLabels(directory, 1))
    for seconds in times:
        seen = request(None)
        seen.started, seen.ended = 0.0, seconds
        metrics.observe(seen)
    histogram = split(total(read_slots(directory)))[1][SECONDS, "PutObject"]
    slot.close()
    for position, bound in enumerate(SECONDS_BOUNDS):
        assert sum(histogram.counts[: position + 1]) == sum(seconds <= bound for seconds in times)
    assert sum(histogram.counts) == len(times)
    assert histogram.sum == pytest.approx(sum(times), abs=1e-6)


# --- formats -------------------------------------------------------------------------------------------------------


def test_labels_are_escaped(tmp_path):
    text = render({(REQUESTS, 'a"b', "c\\d", "e\nf"): 1}, {}).decode()
    (family,) = lint(text).values()
    assert family.samples[0].labels == {"operation": 'a"b', "bucket": "c\\d", "status": "e\nf"}


@pytest.mark.parametrize("openmetrics", [False, True])
def test_every_family_passes_the_lint_in_both_formats(openmetrics):
    samples = {(f.name, *("x" for _ in f.labels)): 1.5 for f in FAMILIES if f.type != "histogram"}
    counts = tuple(range(len(SECONDS_BOUNDS) + 1))
    text = render(samples, {(SECONDS, "x"): Histogram(counts, 2.5)}, openmetrics=openmetrics).decode()
    found = lint(text, openmetrics=openmetrics)
    assert {name: family.type for name, family in found.items()} == {
        f.name.removesuffix("_total"): f.type for f in FAMILIES
    }
    assert text.endswith("# EOF\n") == openmetrics


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4;q=1,*/*;q=0.1", False),
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75",
            True,
        ),
        ("text/html, Application/OpenMetrics-Text", True),
    ],
)
def test_openmetrics_is_for_who_asks(accept, wanted):
    assert wants_openmetrics(accept) == wanted


# --- figures and the page ------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "data", kind="worker", create=True) as opened:
        yield opened


def fill(store):
    """Two buckets, and a report of every care."""

    def commit(txn):
        for name in ("photos", "backups"):
            create_bucket(txn, name, "root", NOW_MS)
        photos = get_bucket(txn, "photos").id
        add_writes(txn, {photos: Writes(NOW_MS, 100)})
        usage = {"unique_bytes": 5, "stored_bytes": 4, "exclusive_bytes": 3}
        put_report(txn, BUCKETS_SUBJECT, {"at_ms": NOW_MS, "complete": True, "buckets": {str(photos): usage}})
        progress = {"step": "idle", "condemned_packs": 1, "missing_chunks": 0}
        rounds = {"round": progress, "ended_ms": NOW_MS, "total_freed_bytes": 9, "rounds": 2}
        put_report(txn, SUBJECT, rounds)
        scrub = {
            "running": True,
            "total_bytes": 10,
            "done_bytes": 5,
            "damage": [],
            "last": {"finished_ms": NOW_MS},
        }
        put_report(txn, SCRUB_SUBJECT, scrub)
        put_report(txn, "verify", {"findings": 0, "finished_ms": NOW_MS})
        put_report(txn, PARITY_SUBJECT, {"packs_protected": 6})

    store.kv.commit(commit)


def test_figures_are_those_of_the_store(store):
    fill(store)
    found = collect(store, lambda name: name)
    assert found["vaultaire_store_buckets",] == 2
    assert found["vaultaire_bucket_exclusive_bytes", "photos"] == 3
    assert ("vaultaire_bucket_exclusive_bytes", "backups") not in found, "not counted yet is not zero"
    assert found["vaultaire_bucket_objects", "backups"] == 0
    assert found["vaultaire_bucket_last_write_timestamp_seconds", "photos"] == NOW_MS / 1000
    assert found["vaultaire_gc_runs_total",] == 2
    assert found["vaultaire_scrub_running",] == 1
    assert found["vaultaire_parity_protected_packs",] == 6
    assert found["vaultaire_disk_size_bytes",] > found["vaultaire_disk_available_bytes",] > 0
    together = collect(store, lambda name: OTHER)
    assert together["vaultaire_bucket_objects", OTHER] == 0
    assert together["vaultaire_bucket_exclusive_bytes", OTHER] == 3


def test_figures_are_kept_for_a_while(store):
    now = 100.0
    figures = Figures(store, lambda name: name, monotonic=lambda: now)
    assert figures.get()["vaultaire_store_buckets",] == 0
    fill(store)
    assert figures.get()["vaultaire_store_buckets",] == 0
    now = 106.0
    assert figures.get()["vaultaire_store_buckets",] == 2


def test_every_family_of_the_store_has_a_sample_there(store):
    """A name in the registry that nothing fills would be a promise that nobody keeps."""
    fill(store)
    slot = Slot(store.directory / "run", "worker")
    answer = page(store, access="public").answer("", "")
    slot.close()
    shown = lint(answer.body.decode())
    expected = {f.name.removesuffix("_total") for f in FAMILIES} - {
        f.name.removesuffix("_total") for f in COUNTED
    }
    only_later = {"vaultaire_checkpoint_last_timestamp_seconds"}
    assert expected - set(shown) <= only_later


def page(store, *, access="key", token=None):
    with store.kv.snapshot() as reader:
        keyring = Keyring.open_or_create(store.directory, reader)
    return MetricsPage(store, keyring, lambda name: name, access=access, token=token)


def basic(access_key, secret):
    return "Basic " + base64.b64encode(f"{access_key}:{secret}".encode()).decode()


SECRET = "a-secret-of-the-tests-of-metrics"


def test_only_who_sees_all_tenants_may_read(store):
    shown = page(store, token="0123456789abcdef0123")
    keys = {
        "ROOT00": new_root("ROOT00", SECRET),
        "ADMIN0": new_principal("root", "admin", access_key="ADMIN0", secret_key=SECRET),
        "READER": new_principal("root", "read-only", access_key="READER", secret_key=SECRET),
        "WRITER": new_principal("root", "read-write", access_key="WRITER", secret_key=SECRET),
        "TENANT": new_principal("photos", "admin", access_key="TENANT", secret_key=SECRET),
        "SCOPED": new_principal(
            "root", "read-only", access_key="SCOPED", secret_key=SECRET, limits=Limits((Scope("one"),))
        ),
        "ENDED0": new_principal(
            "root", "admin", access_key="ENDED0", secret_key=SECRET, limits=Limits(expires_ms=1)
        ),
    }
    for principal in keys.values():
        store.kv.commit(lambda txn, p=principal: shown._keyring.put_key(txn, p))
    allowed = {name for name in keys if shown.answer(basic(name, SECRET), "").status == 200}
    assert allowed == {"ROOT00", "ADMIN0", "READER"}
    assert not may_read_metrics(keys["ENDED0"], NOW_MS)
    for wrong in (
        "",
        "Basic",
        "Basic !!!",
        basic("ROOT00", "wrong"),
        basic("ROOT00", ""),
        basic("nobody", ""),
        basic("", ""),
        "Basic " + base64.b64encode(b"\xff\xfe").decode(),
        "Bearer",
        "Bearer 0123456789abcdef012",
        "Bearer " + SECRET,
    ):
        answer = shown.answer(wrong, "")
        assert answer.status == 401, wrong
        assert b"bucket" not in answer.body
        assert dict(answer.headers)["www-authenticate"].startswith("Basic")
    assert shown.answer("Bearer 0123456789abcdef0123", "").status == 200


def test_public_is_for_all_and_off_for_nobody(store):
    assert page(store, access="public").answer("", "").status == 200
    off = page(store, access="off", token="0123456789abcdef0123")
    assert off.answer("Bearer 0123456789abcdef0123", "").status == 404


@pytest.mark.parametrize("text", ["", "short", "with spaces in the middle of it", "ünglaublich-lange-tokens"])
def test_a_token_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(BadToken, match="token"):
        read_token(path)
    path.write_text("0123456789abcdef\n")
    assert read_token(path) == "0123456789abcdef"


# --- what others write about them ----------------------------------------------------------------------------------

_NAME = re.compile(r"\bvaultaire_[a-z0-9_]+")


def exposed_names():
    names = set()
    for family in FAMILIES:
        parts = ("_bucket", "_sum", "_count") if family.type == "histogram" else ("",)
        names |= {family.name + part for part in parts}
    return names


def test_the_page_of_metrics_names_each_one_and_no_other():
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(vaultaire_[a-z0-9_]+)`", text, re.MULTILINE)) == {f.name for f in FAMILIES}
    assert set(_NAME.findall(text)) <= {f.name for f in FAMILIES} | exposed_names()
    for family in FAMILIES:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{family.name}`"))
        assert row.split("|")[2].strip() == ", ".join(f"`{label}`" for label in family.labels)


def test_the_dashboard_asks_for_what_there_is():
    board = json.loads((ROOT / "contrib" / "grafana" / "vaultaire.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [str(variable["query"]) for variable in board["templating"]["list"]]
    assert len(asked) > 30
    check_queries(asked)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_alerts_ask_for_what_there_is():
    text = (ROOT / "contrib" / "prometheus" / "alerts.yaml").read_text()
    assert "\t" not in text
    blocks = re.split(r"^      - alert: ", text, flags=re.MULTILINE)[1:]
    asked = [re.search(r"expr: (.*?)\n        (?:for|labels):", block, re.DOTALL)[1] for block in blocks]
    assert len(asked) == len(blocks) >= 8
    check_queries(asked)


def check_queries(queries):
    """Names exist, and so do the labels that a metric is asked by."""
    labels = {name: f.labels for f in FAMILIES for name in exposed_names() if name.startswith(f.name)}
    for query in queries:
        for name, matchers in re.findall(r"(vaultaire_[a-z0-9_]+)(?:\{([^}]*)\})?", query):
            assert name in exposed_names(), query
            known = {"job", "instance", "le", *labels[name]}
            assert set(re.findall(r"([a-z_]+)\s*=", matchers)) <= known, query
        assert query.count("(") == query.count(")")
