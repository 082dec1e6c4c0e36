"""Bucket and key from host and path."""

from __future__ import annotations

import pytest

from vaultaire.s3.addressing import bucket_of_host, object_url, parse_domain, split_address

DOMAINS = ("s3.example.org", "example.org", "localhost")


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("bucket.s3.example.org", "bucket"),
        ("bucket.s3.example.org:9000", "bucket"),
        ("bucket.s3.example.org:", "bucket"),
        ("bucket.s3.example.org.", "bucket"),
        ("BUCKET.S3.Example.ORG", "bucket"),
        ("with.dots.s3.example.org", "with.dots"),
        ("bucket.example.org", "bucket"),
        ("s3.bucket.example.org", "s3.bucket"),
        ("bucket.localhost:1", "bucket"),
        (".localhost", ""),
        ("under_score.localhost", "under_score"),
        ("s3.example.org", None),  # a domain, not a bucket of example.org
        ("S3.example.org.:80", None),
        ("example.org", None),
        ("bucket.example.com", None),
        ("nots3example.org", None),
        ("xexample.org", None),
        ("127.0.0.1:9000", None),
        ("[::1]:9000", None),
        ("", None),
    ],
)
def test_the_host_names_the_bucket_under_a_domain(host, bucket):
    assert bucket_of_host(host, DOMAINS) == bucket


def test_without_domains_every_host_is_path_style():
    assert bucket_of_host("bucket.s3.example.org", ()) is None
    assert split_address("bucket.s3.example.org", b"/a/b", ()) == ("a", b"b", False)


@pytest.mark.parametrize(
    ("host", "path", "address"),
    [
        ("b.localhost", b"/", ("b", None, True)),
        ("b.localhost", b"/k", ("b", b"k", True)),
        ("b.localhost", b"/k/l%2Fm", ("b", b"k/l/m", True)),
        ("b.localhost", b"//", ("b", b"/", True)),
        ("b.localhost", b"/-/healthz", ("b", b"-/healthz", True)),
        ("b.localhost", b"/other/k", ("b", b"other/k", True)),
        ("localhost", b"/b/k", ("b", b"k", False)),
        ("localhost", b"/", (None, None, False)),
    ],
)
def test_under_a_buckets_own_host_every_path_is_a_key(host, path, address):
    assert split_address(host, path, DOMAINS) == address


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("s3.example.org", "s3.example.org"),
        ("S3.Example.org.", "s3.example.org"),
        ("localhost", "localhost"),
        ("a-b.c", "a-b.c"),
        ("", None),
        (".", None),
        (".example.org", None),
        ("*.example.org", None),
        ("a..b", None),
        ("-a.b", None),
        ("a_b", None),
        ("host:9000", None),
        ("https://host", None),
        ("127.0.0.1", None),
        ("a" * 64, None),
        ("a." * 130 + "b", None),
    ],
)
def test_a_domain_is_a_name_in_dns(text, domain):
    assert parse_domain(text) == domain


def test_the_url_of_an_object_is_in_the_style_of_the_request():
    assert object_url("http", "h:9000", "b", b"a b/c", virtual=False) == "http://h:9000/b/a%20b/c"
    assert object_url("https", "b.h", "b", b"k", virtual=True) == "https://b.h/k"
    assert object_url("http", "[::1]:1", "b", b"k", virtual=False) == "http://[::1]:1/b/k"
