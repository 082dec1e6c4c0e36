"""Where clients reach the server: the URL that `serve` announces and that `env` repeats.

Table "srv.settings", row "endpoint": 0x45 ("E"), version 1, then JSON in UTF-8 with `url` and `ca_bundle` (a file that
clients need to trust a self-signed certificate, or null). Written by `serve` once it listens; the last server wins.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from index.kv import Reader, Transaction
    from vaultaire.config import ServeConfig

REGION = "us-east-1"

_TABLE = "srv.settings"
_ROW = b"endpoint"
_HEAD = b"E\x01"


@dataclass(frozen=True, slots=True)
class Endpoint:
    url: str
    ca_bundle: Path | None = None

    @property
    def tls(self) -> bool:
        return self.url.startswith("https:")


DEFAULT_ENDPOINT = Endpoint("http://127.0.0.1:9000")


def url_of(tls: bool, host: str, port: int) -> str:
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def plan_endpoint(config: ServeConfig, host: str, port: int) -> Endpoint:
    """What to tell clients of a server that listens on `host` and `port`.

    A wildcard address becomes the loopback address. With TLS the host is one that the certificate names, for
    clients compare them. Raises OSError, ValueError for a certificate that cannot be read.
    """
    address = _address(host)
    if address is not None and address.is_unspecified:
        host = "::1" if address.version == 6 else "127.0.0.1"
    if config.tls_cert is None:
        return Endpoint(url_of(False, host, port))
    from cryptography.x509 import load_pem_x509_certificate

    certificate = load_pem_x509_certificate(config.tls_cert.read_bytes())
    self_signed = certificate.issuer == certificate.subject
    url = url_of(True, _named_host(certificate, host), port)
    return Endpoint(url, config.tls_cert if self_signed else None)


def _named_host(certificate: Certificate, host: str) -> str:
    """`host` if the certificate covers it, else the best name that it has: localhost, or its first plain one."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return host
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    plain = [name for name in names.get_values_for_type(x509.DNSName) if not name.startswith("*")]
    candidates = [*plain, *addresses]
    if host in candidates or not candidates:
        return host
    return "localhost" if "localhost" in plain else candidates[0]


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def read_endpoint(reader: Reader) -> Endpoint | None:
    """None: no server has announced one yet (or one of another version did, in another way)."""
    row = reader.get(_TABLE, _ROW)
    if row is None or not row.startswith(_HEAD):
        return None
    try:
        fields = json.loads(row[len(_HEAD) :])
        url, bundle = fields["url"], fields["ca_bundle"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(url, str) or not isinstance(bundle, str | None):
        return None
    return Endpoint(url, Path(bundle) if bundle else None)


def write_endpoint(txn: Transaction, endpoint: Endpoint) -> None:
    fields = {"url": endpoint.url, "ca_bundle": str(endpoint.ca_bundle) if endpoint.ca_bundle else None}
    txn.put(_TABLE, _ROW, _HEAD + json.dumps(fields).encode("utf-8"))
