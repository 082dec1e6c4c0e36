"""Backups in a bucket behind any S3 server, by obstore (the extra `vaultaire[s3]`; wheels for every Python we run on).

Endpoint, region and credentials come from the usual environment: AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; AWS_CA_BUNDLE names more certificates to trust.

Each item is an object, written by one PutObject or one multipart upload, so it is there whole or not at all, and
durable when the server says so. Uploads carry a SHA-256, which the server verifies. There is no lock: two stores, or
two copies of one, need two prefixes.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from vaultaire.backup.place import BackupError, DestinationFull, ItemMissing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import ClientConfig, ObjectStore, S3Store

    from vaultaire.backup.place import Buffer

_PART_BYTES = 16 << 20  # of a multipart upload
_RETRIES = 5
_RETRY_SECONDS = 60.0  # in all, per request


class BucketPlace:
    """See `vaultaire.backup.place.Place`."""

    def __init__(self, bucket: str, prefix: str, *, store: ObjectStore | None = None) -> None:
        """Raises BackupError if obstore is not installed or the settings are of no use. Asks the server nothing.

        `store`: something else than S3, for tests.
        """
        try:
            import obstore
            from obstore.store import S3Store as S3
        except ImportError as error:
            raise BackupError(
                "backups to s3:// need the extra `s3`; install it with: pip install 'vaultaire[s3]'"
            ) from error
        self._obstore = obstore
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        try:
            self._store = store or self._connect(S3)
        except (ValueError, obstore.exceptions.BaseError) as error:
            raise BackupError(f"s3://{bucket}: {error}") from error

    def _connect(self, kind: type[S3Store]) -> S3Store:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        return kind(
            self._bucket,
            prefix=self._prefix or None,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
            checksum_algorithm="SHA256",
            client_options=_client_options(endpoint),
            retry_config={
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=5),
                    "base": 2,
                },
            },
        )

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    @contextmanager
    def writing(self) -> Iterator[None]:
        yield

    def put(self, name: str, data: Buffer, *, replace: bool = False) -> None:
        if replace or self.size(name) is None:
            with self._translated(name, len(data)):
                self._obstore.put(self._store, name, bytes(data), chunk_size=_PART_BYTES)

    def put_new(self, name: str, data: Buffer) -> None:
        try:
            with self._translated(name, len(data)):
                self._put_if_absent(name, bytes(data))
        except _Exists as error:
            raise BackupError(f"{self.url}/{name} is there already; is another backup under way?") from error

    def _put_if_absent(self, name: str, data: bytes) -> None:
        """Some servers do not know If-None-Match: there two writers at once could not be told apart anyway."""
        try:
            self._obstore.put(self._store, name, data, mode="create")
        except self._obstore.exceptions.BaseError as error:
            unknown = isinstance(
                error, self._obstore.exceptions.NotSupportedError
            ) or "NotImplemented" in str(error)
            if not unknown:
                raise
            if self.size(name) is not None:
                raise _Exists(name) from error
            self._obstore.put(self._store, name, data)

    def get(self, name: str) -> bytes:
        with self._translated(name):
            return bytes(self._obstore.get(self._store, name).bytes())

    def size(self, name: str) -> int | None:
        try:
            with self._translated(name):
                return self._obstore.head(self._store, name)["size"]
        except ItemMissing:
            return None

    def items(self, folder: str) -> Iterator[tuple[str, int]]:
        with self._translated(folder):
            for page in self._obstore.list(self._store, prefix=folder):
                for item in page:
                    yield item["path"], item["size"]

    def remove(self, name: str) -> None:
        try:
            with self._translated(name):
                self._obstore.delete(self._store, name)
        except ItemMissing:
            pass

    def flush(self) -> None:
        """Every answer of the server meant durable already."""

    @contextmanager
    def _translated(self, name: str, needed: int = 0) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            # The bucket itself may be what is not there.
            if "NoSuchBucket" in str(error):
                raise BackupError(f"s3://{self._bucket}: there is no such bucket; create it first") from error
            raise ItemMissing(self.url, name) from error
        except self._obstore.exceptions.AlreadyExistsError as error:
            raise _Exists(str(error)) from error
        except (self._obstore.exceptions.BaseError, ValueError, OSError) as error:
            text = " ".join(str(error).split())
            if "InsufficientStorage" in text or " 507 " in text:
                raise DestinationFull(self.url, needed, None) from error
            raise BackupError(f"{self.url}/{name}: {text[:400]}; {_hint(text)}") from error


class _Exists(BackupError):
    pass


def _hint(text: str) -> str:
    """What to do about the error that obstore describes so."""
    if "InvalidCertificate" in text:  # of rustls, deep inside
        return (
            "the server's certificate is not trusted; name the file of its authority's certificate in AWS_CA_BUNDLE "
            "(a certificate that is its own authority is refused)"
        )
    return (
        "check AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (`vaultaire env` prints them "
        "for a Vaultaire server), and that the bucket exists"
    )


def _client_options(endpoint: str) -> ClientConfig:
    """Raises BackupError for a bundle of certificates that cannot be read."""
    options: ClientConfig = {
        "allow_http": endpoint.startswith("http://"),
        "timeout": timedelta(minutes=10),
    }
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if bundle:
        try:
            options["root_certificate"] = Path(bundle).read_bytes()
        except OSError as error:
            raise BackupError(
                f"AWS_CA_BUNDLE: {bundle}: {error.strerror}; name a file of PEM certificates"
            ) from error
    return options
