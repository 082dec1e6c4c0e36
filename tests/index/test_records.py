"""Records: bytes are pinned, every record comes back, and no damage raises anything but our errors."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import CorruptRecord, UnsupportedRecord
from index.records import (
    BucketRecord,
    Checksum,
    DefaultRetention,
    Listing,
    ObjectRecord,
    PartRecord,
    PartSummary,
    Retention,
    UploadRecord,
    decode_listing,
    decode_parts,
    encode_parts,
)
from index.values import ALGORITHMS, TYPES

MD5 = "d41d8cd98f00b204e9800998ecf8427e"

u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)
text = st.text(st.characters(codec="utf-8"), max_size=20)
pairs = st.lists(st.tuples(text, text), max_size=3).map(tuple)
md5s = st.binary(min_size=16, max_size=16).map(bytes.hex)
etags = st.one_of(md5s, st.builds("{}-{}".format, md5s, st.integers(1, 10_000)))
checksums = st.builds(
    Checksum, st.sampled_from(ALGORITHMS), st.sampled_from(TYPES), st.text("aZ9+/=-", min_size=1, max_size=90)
)
retentions = st.builds(Retention, st.sampled_from(("GOVERNANCE", "COMPLIANCE")), u64)
summaries = st.builds(PartSummary, st.integers(1, 10_000), u64, md5s, st.none() | checksums)
tables = st.just(b"") | st.lists(summaries, max_size=4).map(encode_parts)

objects = st.builds(
    ObjectRecord,
    size=u64,
    modified_ms=u64,
    etag=etags,
    owner=text,
    sequence=u64,
    version_id=st.none() | st.binary(min_size=1, max_size=32),
    content_type=st.none() | text,
    headers=pairs,
    metadata=pairs,
    checksum=st.none() | checksums,
    inline=st.none() | st.binary(max_size=50),
    part_table=tables,
    new_stored_bytes=u64,
    domain=u32,
    tags=pairs,
    retention=st.none() | retentions,
    legal_hold=st.none() | st.booleans(),
    acl=pairs,
).map(lambda record: record if record.inline is not None else replace(record, manifest=b"manifest"))
markers = st.builds(
    lambda record: replace(record, delete_marker=True, etag="", inline=None, manifest=None), objects
)
defaults = st.builds(
    DefaultRetention, st.sampled_from(("GOVERNANCE", "COMPLIANCE")), u32, st.sampled_from(("Days", "Years"))
)
buckets = st.builds(
    BucketRecord,
    u64,
    text,
    text,
    u64,
    u64,
    st.sampled_from(("Off", "Enabled", "Suspended")),
    st.booleans(),
    st.none() | defaults,
    st.booleans(),
    st.sampled_from(("auto", "off", "on")),
    st.booleans(),
)
uploads = st.builds(
    UploadRecord,
    upload_id=text,
    key=st.binary(min_size=1, max_size=30),
    owner=text,
    initiated_ms=u64,
    sequence=u64,
    content_type=st.none() | text,
    headers=pairs,
    metadata=pairs,
    checksum_algorithm=st.none() | st.sampled_from(ALGORITHMS),
    checksum_type=st.none() | st.sampled_from(TYPES),
    tags=pairs,
    retention=st.none() | retentions,
    legal_hold=st.none() | st.booleans(),
    acl=pairs,
)
parts = st.builds(
    PartRecord,
    number=st.integers(1, 10_000),
    size=u64,
    etag=md5s,
    modified_ms=u64,
    manifest=st.binary(max_size=50),
    checksum=st.none() | checksums,
    sequence=u64,
    new_stored_bytes=u64,
    domain=u32,
)
any_record = st.one_of(objects, markers, buckets, uploads, parts)


@settings(deadline=None)
@given(any_record)
def test_every_record_comes_back_as_it_was(record):
    assert type(record).decode(record.encode()) == record


@settings(deadline=None)
@given(objects | markers)
def test_a_listing_is_the_head_of_the_record(record):
    checksum = record.checksum
    assert decode_listing(record.encode()) == Listing(
        record.sequence,
        record.modified_ms,
        record.size,
        record.etag,
        record.owner,
        record.version_id,
        record.delete_marker,
        checksum and checksum.algorithm,
        checksum and checksum.type,
    )


@settings(deadline=None)
@given(st.lists(summaries, max_size=6))
def test_a_part_table_comes_back(wanted):
    assert decode_parts(encode_parts(wanted)) == tuple(wanted)


@settings(deadline=None, max_examples=150)
@given(any_record, st.data())
def test_damaged_bytes_raise_only_our_errors(record, data):
    value = bytearray(record.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    del value[data.draw(st.integers(0, len(value))) :]
    decoders = [type(record).decode]
    if isinstance(record, ObjectRecord):
        decoders += [decode_listing, lambda damaged: ObjectRecord.decode(damaged).parts]
    for decode in decoders:
        with suppress(CorruptRecord, UnsupportedRecord):
            decode(bytes(value))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_raise_only_our_errors(value):
    for decode in (
        ObjectRecord.decode,
        BucketRecord.decode,
        UploadRecord.decode,
        PartRecord.decode,
        decode_listing,
        decode_parts,
    ):
        with suppress(CorruptRecord, UnsupportedRecord):
            decode(value)


# --- Golden bytes: a change here is a change of the format -----------------------------------------------------

OBJECT = ObjectRecord(
    size=11,
    modified_ms=1_795_331_686_584,
    etag=MD5 + "-2",
    owner="tenant",
    sequence=0x0102,
    version_id=b"v1",
    content_type="text/plain",
    headers=(("cache-control", "no-store"),),
    metadata=(("a", "é"),),
    checksum=Checksum("CRC32", "COMPOSITE", "AAAAAA==-2"),
    manifest=b"MANIFEST",
    part_table=encode_parts([PartSummary(1, 5, MD5, Checksum("CRC32", "FULL_OBJECT", "AAAAAA=="))]),
    new_stored_bytes=7,
    domain=9,
    tags=(("k", "v"),),
    retention=Retention("COMPLIANCE", 3),
    legal_hold=True,
    acl=(("other", "READ"),),
)
INLINE = ObjectRecord(size=0, modified_ms=1, etag=MD5, owner="t", inline=b"")
MARKER = ObjectRecord(
    size=0, modified_ms=1, etag="", owner="t", version_id=b"v", delete_marker=True, sequence=2
)
BUCKET = BucketRecord(5, "photos", "tenant", 1, 2, "Enabled", configured=True)
LOCKED = replace(BUCKET, object_lock=True, default_retention=DefaultRetention("COMPLIANCE", 258, "Years"))
UPLOAD = UploadRecord(
    upload_id="00" * 16,
    key=b"k\x00",
    owner="t",
    initiated_ms=1,
    sequence=2,
    content_type="",
    checksum_algorithm="CRC64NVME",
    checksum_type="FULL_OBJECT",
)
PART = PartRecord(
    number=3, size=4, etag=MD5, modified_ms=5, manifest=b"M", sequence=6, new_stored_bytes=7, domain=8
)

GOLDEN = {
    "object": (
        OBJECT,
        "4f013f0000010106020002000000090000000000000102000001a2021b80b8000000000000000bd41d8cd98f00"
        "b204e9800998ecf8427e000000000000000774656e616e747631010000000a746578742f706c61696e02000000"
        "1b000d63616368652d636f6e74726f6c000000086e6f2d73746f7265030000000900016100000002c3a9040000"
        "000a4141414141413d3d2d3206000000084d414e49464553540700000027000100010000000000000005d41d8c"
        "d98f00b204e9800998ecf8427e0102084141414141413d3d080000000800016b00000001760900000009020000"
        "0000000000030a00000001010e0000000f00056f746865720000000452454144",
    ),
    "inline": (
        INLINE,
        "4f013f000000000100000000000000000000000000000000000000000000010000000000000000d41d8cd98f00"
        "b204e9800998ecf8427e0000000000000000740500000000",
    ),
    "marker": (
        MARKER,
        "4f013f010000000101000000000000000000000000000200000000000000010000000000000000000000000000"
        "0000000000000000000000000000000000007476",
    ),
    "bucket": (
        BUCKET,
        "42011e000101000000000000000500000000000000010000000000000002010000000670686f746f7302000000"
        "0674656e616e74",
    ),
    "locked bucket": (
        LOCKED,
        "42011e010101000000000000000500000000000000010000000000000002010000000670686f746f7302000000"
        "0674656e616e740300000006020200000102",
    ),
    "upload": (
        UPLOAD,
        "550117000005020000000000000001000000000000000201000000000b000000026b000c000000203030303030"
        "3030303030303030303030303030303030303030303030303030300d0000000174",
    ),
    "part": (
        PART,
        "50013d00000000000300000008000000000000000400000000000000050000000000000006d41d8cd98f00b204"
        "e9800998ecf8427e000000000000000706000000014d",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_of_a_record_are_what_they_were(name):
    record, golden = GOLDEN[name]
    assert record.encode().hex() == golden
    assert type(record).decode(bytes.fromhex(golden)) == record


# --- Versions of the format ------------------------------------------------------------------------------------


def with_byte(value: bytes, position: int, byte: int) -> bytes:
    return value[:position] + bytes((byte,)) + value[position + 1 :]


@pytest.mark.parametrize("record", [OBJECT, MARKER, BUCKET, UPLOAD, PART])
class TestFormat:
    def test_another_version_is_refused(self, record):
        with pytest.raises(UnsupportedRecord, match="version 2"):
            type(record).decode(with_byte(record.encode(), 1, 2))

    def test_another_kind_is_corrupt(self, record):
        with pytest.raises(CorruptRecord, match="kind"):
            type(record).decode(with_byte(record.encode(), 0, 0))

    def test_an_unknown_incompatible_flag_is_refused_and_a_compatible_one_ignored(self, record):
        with pytest.raises(UnsupportedRecord, match="flags"):
            type(record).decode(with_byte(record.encode(), 3, 0x80))
        value = record.encode()
        assert type(record).decode(with_byte(value, 4, value[4] | 0x80)) == record

    def test_a_longer_head_is_read_by_the_part_that_is_known(self, record):
        value = record.encode()
        longer = with_byte(value[: value[2]] + b"later" + value[value[2] :], 2, value[2] + 5)
        assert type(record).decode(longer) == record
        if isinstance(record, ObjectRecord):
            assert decode_listing(longer) == decode_listing(value)

    def test_an_unknown_field_is_skipped_from_tag_128_and_refused_below(self, record):
        value = record.encode()
        assert type(record).decode(value + struct.pack(">BI", 128, 3) + b"new") == record
        with pytest.raises(UnsupportedRecord, match="field 127"):
            type(record).decode(value + struct.pack(">BI", 127, 3) + b"new")

    def test_a_field_twice_is_corrupt(self, record):
        field = struct.pack(">BI", 128, 0)
        with pytest.raises(CorruptRecord, match="field 128 after field 128"):
            type(record).decode(record.encode() + field + field)

    def test_a_cut_is_corrupt(self, record):
        value = record.encode()
        with pytest.raises(CorruptRecord):
            type(record).decode(value[:30])
        with pytest.raises(CorruptRecord):
            type(record).decode(value + struct.pack(">BI", 128, 3) + b"ne")


def test_damage_is_found_by_a_listing_too():
    value = OBJECT.encode()
    for damaged in (value[:40], value[:64], with_byte(value, 0, 0), with_byte(value, 5, 200)):
        with pytest.raises(CorruptRecord):
            decode_listing(damaged)
    with pytest.raises(UnsupportedRecord):
        decode_listing(with_byte(value, 1, 2))


# --- What no caller may build ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"inline": b"both"},
        {"manifest": None},
        {"delete_marker": True},
        {"etag": MD5.upper()},
        {"etag": MD5 + "-0"},
        {"etag": MD5 + "-02"},
        {"etag": MD5 + "-70000"},
        {"etag": MD5[:-2]},
        {"etag": ""},
        {"size": -1},
        {"size": 2**64},
        {"owner": "o" * 256},
        {"checksum": Checksum("CRC32", "COMPOSITE", "")},
        {"checksum": Checksum("CRC32", "COMPOSITE", "é")},
    ],
)
def test_an_impossible_object_is_refused_before_it_is_written(change):
    with pytest.raises(ValueError, match=r"."):
        replace(OBJECT, **change).encode()


def test_an_impossible_part_is_refused_before_it_is_written():
    for change in ({"etag": MD5 + "-2"}, {"number": -1}, {"number": 65536}):
        with pytest.raises(ValueError, match=r"."):
            replace(PART, **change).encode()
    with pytest.raises(ValueError, match="MD5"):
        encode_parts([PartSummary(1, 1, MD5 + "-2")])


def test_an_empty_object_is_not_one_without_data():
    assert ObjectRecord.decode(INLINE.encode()).inline == b""
    assert ObjectRecord.decode(replace(INLINE, content_type="").encode()).content_type == ""


def test_the_sequence_given_to_encode_wins():
    assert ObjectRecord.decode(OBJECT.encode(99)) == replace(OBJECT, sequence=99)
    assert PartRecord.decode(PART.encode(99)) == replace(PART, sequence=99)


def test_ten_thousand_parts_fit_a_record_with_room_to_spare():
    checksum = Checksum("SHA512", "COMPOSITE", "A" * 86 + "==")
    table = encode_parts([PartSummary(number, 5 << 20, MD5, checksum) for number in range(1, 10_001)])
    assert len(replace(OBJECT, part_table=table).encode()) < 2 << 20
