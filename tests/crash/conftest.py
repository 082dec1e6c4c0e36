"""What the tests with a whole server share with those of S3."""

from tests.s3.conftest import rng

__all__ = ["rng"]
