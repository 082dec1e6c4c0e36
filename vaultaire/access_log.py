"""The access log: one line per S3 request that is over, as JSON or in Apache's combined format. Pure.

No secret gets into it: no Authorization header, no signature, no token; the query is shown without the values that
presigned requests carry. Whatever a client sends is escaped, so that nobody can forge a line or send a terminal
commands: JSON with ASCII only; in the combined format backslash, quote, control characters and all beyond ASCII as `\\xHH`.
What a client may make long is cut. docs/logs.md explains every field.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from vaultaire.s3.observation import Observation

MAX_TEXT: Final = 1024  # characters of a header that are kept
MAX_TARGET: Final = 4096  # of path and query
REDACTED: Final = "REDACTED"

# Of the parameters x-amz-..., those that tell nothing secret; all others that name a signature are redacted.
_HARMLESS: Final = frozenset(
    (
        b"x-amz-algorithm",
        b"x-amz-credential",
        b"x-amz-date",
        b"x-amz-expires",
        b"x-amz-signedheaders",
        b"x-amz-content-sha256",
        b"x-amz-checksum-algorithm",
        b"x-amz-user-agent",
    )
)
_SECRET: Final = frozenset((b"signature", b"awsaccesskeyid", b"authorization"))
_UNSAFE: Final = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")  # all but printable ASCII without " and \


def json_line(seen: Observation, now: float) -> bytes:
    scope, principal = seen.scope, seen.principal
    operation = seen.operation
    fields = [
        f'{{"time":"{_iso_second(int(now))}.{int(now * 1000) % 1000:03d}Z","request_id":"{seen.request_id}"'
        f',"remote":{quoted(_remote(scope))},"access_key":{quoted(seen.claimed[:128])}'
        f',"tenant":{quoted(principal.tenant)}'
        f',"operation":{f"{chr(34)}{operation.value}{chr(34)}" if operation is not None else "null"}'
        f',"method":{quoted(scope["method"][:MAX_TEXT])}'
        f',"bucket":{quoted(seen.bucket[:MAX_TEXT]) if seen.bucket is not None else "null"}'
        f',"key":{quoted(seen.key.decode("utf-8", "replace")) if seen.key is not None else "null"}'
        f',"status":{seen.status},"error":{f"{chr(34)}{seen.code}{chr(34)}" if seen.code is not None else "null"}'
        f',"bytes_in":{seen.bytes_in},"bytes_out":{seen.bytes_out},"seconds":{seen.seconds:.6f}'
        f',"first_byte_seconds":{_first_byte(seen, "null")},"complete":{"true" if seen.complete else "false"}'
    ]
    query = scope["query_string"]
    if query:
        fields.append(f',"query":{quoted(redact_query(query[:MAX_TARGET]))}')
    agent = _header(scope, b"user-agent")
    fields.append(f',"user_agent":{quoted(agent)}}}\n')
    return "".join(fields).encode("ascii")


def combined_line(seen: Observation, now: float) -> bytes:
    """Apache's `%h - %u %t "%r" %>s %b "%{Referer}i" "%{User-agent}i"`, then what S3 adds, each one word."""
    scope, principal = seen.scope, seen.principal
    query = scope["query_string"]
    target = scope["raw_path"][:MAX_TARGET].decode("latin-1")
    if query:
        target += "?" + redact_query(query[:MAX_TARGET])
    referer = _header(scope, b"referer").partition("?")[0]  # it may be a presigned URL
    operation = seen.operation.value if seen.operation is not None else "-"
    words = (
        f"{_escaped(_remote(scope))} - {_word(principal.access_key)} [{_apache_second(int(now))}] "
        f'"{_escaped(scope["method"])} {_escaped(target)} HTTP/{scope["http_version"]}" {seen.status} '
        f'{seen.bytes_out or "-"} "{_escaped(referer) or "-"}" "{_escaped(_header(scope, b"user-agent")) or "-"}" '
        f"{seen.request_id} {operation} {seen.code or '-'} {_word(principal.tenant)} {seen.bytes_in} "
        f"{seen.seconds:.6f} {_first_byte(seen, '-')}\n"
    )
    return words.encode("ascii")


def redact_query(query: bytes) -> str:
    """The query as it came, Latin-1, without the values of what signs it."""
    if b"=" not in query:
        return query.decode("latin-1")
    return "&".join(_redacted(piece) for piece in query.split(b"&"))


def _redacted(piece: bytes) -> str:
    name, equals, value = piece.partition(b"=")
    plain = unquote_to_bytes(name.replace(b"+", b" ")).strip().lower()
    secret = plain in _SECRET or (plain.startswith(b"x-amz-") and plain not in _HARMLESS)
    shown = REDACTED if secret and value else value.decode("latin-1")
    return f"{name.decode('latin-1')}{equals.decode()}{shown}"


def _header(scope: Any, wanted: bytes) -> str:  # noqa: ANN401  # ASGI's scope
    for name, value in scope["headers"]:
        if name == wanted:
            text: str = value[:MAX_TEXT].decode("latin-1")
            return text
    return ""


def _remote(scope: Any) -> str:  # noqa: ANN401  # ASGI's scope
    client = scope.get("client")
    return str(client[0]) if client else "-"


def _first_byte(seen: Observation, missing: str) -> str:
    return missing if seen.first_byte is None else f"{seen.first_byte - seen.started:.6f}"


def _word(text: str) -> str:
    return _escaped(text).replace(" ", "\\x20") or "-"


def _escaped(text: str) -> str:
    return _UNSAFE.sub(lambda match: "".join(f"\\x{byte:02x}" for byte in match[0].encode()), text)


@lru_cache(maxsize=4)
def _iso_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@lru_cache(maxsize=4)
def _apache_second(second: int) -> str:
    """In UTC: the months' names are English, whatever the locale."""
    moment = time.gmtime(second)
    month = "JanFebMarAprMayJunJulAugSepOctNovDec"[3 * moment.tm_mon - 3 : 3 * moment.tm_mon]
    return f"{moment.tm_mday:02d}/{month}/{moment.tm_year}:{time.strftime('%H:%M:%S', moment)} +0000"
