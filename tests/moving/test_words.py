"""Small pure things: orders of versions, encoded words, what is shown and printed."""

from __future__ import annotations

import dataclasses
import datetime
import re
from pathlib import Path

import pytest

from index.records import ObjectRecord
from index.values import Retention
from vaultaire.cli.moving import summary
from vaultaire.moving.carried import decode_word, parse_carried, put_parameters
from vaultaire.moving.places import Attributes, ObjectError
from vaultaire.moving.report import Pace, Report, duration
from vaultaire.moving.s3_place import merge_versions


def row(key, version, second, *, latest=False):
    moment = datetime.datetime.fromtimestamp(second, datetime.UTC)
    return {
        "Key": key,
        "VersionId": version,
        "LastModified": moment,
        "IsLatest": latest,
        "Size": 1,
        "ETag": '"e"',
    }


def order(document, versions, markers):
    return "".join(entry.version_id for entry in merge_versions(document, versions, markers))


V, D = b"<Version><Key>k</Key></Version>", b"<DeleteMarker></DeleteMarker>"


def test_the_order_of_the_document_counts_where_times_agree():
    versions = [row("k", "c", 5, latest=True), row("k", "a", 5)]
    assert order(V + D + V, versions, [row("k", "b", 5)]) == "cba", (
        "all of one second: only the document knows"
    )
    assert order(D + V + V, [row("k", "b", 5), row("k", "a", 5)], [row("k", "c", 5, latest=True)]) == "cba"


def test_markers_that_are_listed_last_find_their_place_by_time():
    versions = [row("k", "c", 7, latest=True), row("k", "a", 5), row("l", "x", 1)]
    markers = [row("k", "b", 6), row("l", "y", 2, latest=True)]
    assert order(V + V + V + D + D, versions, markers) == "cbayx"


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        ("plain", "plain"),
        ("=?UTF-8?B?Z3LDvMOfZQ==?=", "grüße"),
        ("=?utf-8?q?gr=C3=BC=C3=9Fe?=", "grüße"),
        ("=?UTF-8?B?Z3LDvA==?= =?UTF-8?B?w59l?=", "grüße"),
        ("=?UTF-8?B?!!?=", "=?UTF-8?B?!!?="),
        ("a =?UTF-8?B?YQ==?=", "a =?UTF-8?B?YQ==?="),
        ("=?UTF-8?B?/w==?=", "=?UTF-8?B?/w==?="),
    ],
)
def test_encoded_words_become_text_and_nothing_else_does(wire, text):
    assert decode_word(wire) == text


def test_metadata_goes_out_as_it_came_in():
    fields = {
        b"x-amz-meta-m": "=?UTF-8?B?Z3LDvMOfZQ==?=",
        b"content-type": "a/b",
        b"x-amz-storage-class": "ODD",
    }
    report = Report("s", "t")
    carried = parse_carried(Attributes(1, "", 0, fields), report, object_lock=False)
    assert carried.metadata == (("m", "grüße"),)
    assert report.notes == {"storage class: one that S3 does not name": 1}
    record = ObjectRecord(0, 0, "0" * 32, "root", content_type="a/b", metadata=carried.metadata, inline=b"")
    sent = put_parameters(record, report, keep_class=True, object_lock=False, now_ms=0)
    assert sent == {"ContentType": "a/b", "Metadata": {"m": "=?UTF-8?B?Z3LDvMOfZQ==?="}}
    with pytest.raises(ObjectError):
        parse_carried(Attributes(1, "", 0, {b"x-amz-meta-m": "x" * 3000}), report, object_lock=False)


def test_locks_are_sent_only_where_they_are_kept():
    record = ObjectRecord(
        0,
        0,
        "0" * 32,
        "root",
        inline=b"",
        retention=Retention("COMPLIANCE", 1_800_000_000_000),
        legal_hold=True,
    )
    report = Report("s", "t")
    assert put_parameters(record, report, keep_class=False, object_lock=False, now_ms=0) == {}
    assert report.notes == {"retention or legal hold: the target bucket has no Object Lock": 1}
    assert put_parameters(record, report, keep_class=False, object_lock=True, now_ms=0) == {
        "ObjectLockMode": "COMPLIANCE",
        "ObjectLockRetainUntilDate": "2027-01-15T08:00:00.000Z",
        "ObjectLockLegalHoldStatus": "ON",
    }
    late = put_parameters(record, report, keep_class=False, object_lock=True, now_ms=1_900_000_000_000)
    assert late == {"ObjectLockLegalHoldStatus": "ON"}, "a retention that has ended would be refused"


def test_the_line_on_the_terminal_tells_rate_and_time_left():
    pace, report = Pace(), Report("s", "t")
    pace.find([100 << 20, 900 << 20])
    pace.moved_bytes, pace.handled_objects = 100 << 20, 1
    assert pace.line(report, 10) == "1 of 2+ objects, 100.0 MiB, 10.0 MiB/s"
    pace.listed = True
    pace.spare(100 << 20)
    assert pace.line(report, 10) == "1 of 2 objects, 100.0 MiB, 10.0 MiB/s, 80 s left"
    report.done_objects, report.failed = 3, 1
    assert pace.line(report, 0).endswith("; 3 were there; 1 failed")
    assert [duration(s) for s in (5, 150, 7800)] == ["5 s", "2 min", "2 h 10 min"]


def test_the_summary_says_what_was_left_out():
    report = Report(
        "s3://a", "b", objects=1, kept=1, kept_keys=["k"], changed=2, delete_markers=1, refreshed=1
    )
    report.prove("md5")
    report.note("sockets", 2)
    text = "\n".join(summary(report, "imported"))
    for said in (
        "1 objects (0 B) imported from s3://a to b",
        "were kept",
        ": k",
        "MD5 ETag: 1",
        "sockets: 2",
        "anew",
    ):
        assert said in text


def test_the_documentation_names_every_field_of_the_report():
    documented = (Path(__file__).parents[2] / "docs" / "moving.md").read_text()
    table = documented.partition("## `--json`")[2].partition("\n## ")[0]
    names = {
        name
        for line in table.splitlines()
        for name in re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")
    }
    assert names == {field.name for field in dataclasses.fields(Report)}
