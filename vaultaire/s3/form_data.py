"""The multipart/form-data of a browser's upload, sans-io: bytes in; fields, then the file's bytes, out.

Guarantees:

* The same bytes give the same fields and the same file however they were cut into reads.
* What precedes the file is bounded (S3's 20 KB for all of it, 4 KiB for the header of a part); the file is handed on
  as it comes, never kept.
* There is one reading: a delimiter line that is none, a field that comes twice (in any case of its letters) or a
  part without a name is refused, so what a policy was checked against is what is executed.
* The form is over with its file, as on S3: later fields are counted, bounded and ignored.

Left to others: what fields mean (`post_policy`, `operations/post_object`).

RFC 7578, RFC 2046 5.1.1; https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-post-example.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from vaultaire.s3.errors import S3Error, invalid_argument

MAX_FORM_BYTES = 20 * 1024  # https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTForms.html
MAX_HEADER_BYTES = 4 * 1024
MAX_AFTER_BYTES = 64 * 1024  # of what is ignored after the file
_MAX_BOUNDARY_CHARS = 70  # RFC 2046

_CONTENT_TYPE = re.compile(r"multipart/form-data\s*(;.*)?", re.IGNORECASE | re.DOTALL)
_PARAMETER = re.compile(r';\s*([\w!#$%&\'*+.^`|~-]+)\s*=\s*("(?:\\"|[^"])*"|[^\s;"]*)\s*')
# RFC 2046's bchars without the space; it may stand inside, but nobody sends one.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=?-]+")
_PADDING = b" \t"


@dataclass(frozen=True, slots=True)
class Field:
    """A field before the file; `name` is in lower case."""

    name: str
    value: bytes


@dataclass(frozen=True, slots=True)
class FileStart:
    """The fields are complete; from now on pieces of the file follow. `filename` without the sender's folders."""

    filename: str


class FileEnd:
    """The file is complete. Nothing of the form that comes later counts."""


FILE_END = FileEnd()
Event = Field | FileStart | FileEnd | bytes


class _Phase(Enum):
    PREAMBLE = auto()  # before the first delimiter
    DELIMITED = auto()  # right behind a delimiter: its line must end, or the form does
    HEADER = auto()
    FIELD = auto()
    FILE = auto()
    AFTER = auto()  # the file is over
    END = auto()  # the form ended without one


def malformed() -> S3Error:
    return S3Error("MalformedPOSTRequest")


def is_form(content_type: str | None) -> bool:
    """Whether a request with this Content-Type claims to be a form."""
    return content_type is not None and _CONTENT_TYPE.fullmatch(content_type) is not None


def parse_boundary(content_type: str) -> bytes:
    """The boundary named by a form's Content-Type. Raises MalformedPOSTRequest."""
    match = _CONTENT_TYPE.fullmatch(content_type)
    parameters = _parameters(match[1] or "") if match is not None else None
    boundary = parameters.get("boundary", "") if parameters is not None else ""
    if len(boundary) > _MAX_BOUNDARY_CHARS or _BOUNDARY.fullmatch(boundary) is None:
        raise malformed()
    return boundary.encode("ascii")


def _parameters(text: str) -> dict[str, str] | None:
    """`; a=b; c="d"` as names (lower case) to values; None if that is not what it is, or a name comes twice."""
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None or match[1].lower() in found:
            return None
        value = match[2]
        if value.startswith('"'):
            # Browsers send backslashes as they are (folders of Windows); only a quote may stand behind one.
            value = value[1:-1].replace('\\"', '"')
        found[match[1].lower()] = value
        position = match.end()
    return found


class FormParser:
    """`feed` what arrives; `finish` when nothing more does. Both raise MalformedPOSTRequest and its kin."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        # The first delimiter may stand at the very beginning: as if the line before it had just ended.
        self._buffer = b"\r\n"
        self._phase = _Phase.PREAMBLE
        self._names: set[str] = set()
        self._name = ""
        self._before_file = -2  # bytes taken so far, without the line end that was never sent
        self._after_file = 0

    def feed(self, data: bytes) -> list[Event]:
        """What is complete with `data`. Pieces of the file are never empty."""
        self._buffer = self._buffer + data if self._buffer else data
        events: list[Event] = []
        while self._step(events):
            pass
        if self._phase not in (_Phase.FILE, _Phase.AFTER):
            self._bound_fields(len(self._buffer))
        return events

    def finish(self) -> None:
        """The body is over: the file must be, too."""
        if self._phase is _Phase.END:
            raise S3Error(
                "InvalidArgument",
                "POST requires exactly one file upload per request.",
                extra={"ArgumentName": "file", "ArgumentValue": "0"},
            )
        if self._phase is not _Phase.AFTER:
            raise malformed()

    def _step(self, events: list[Event]) -> bool:
        """One transition; False when more bytes are needed."""
        match self._phase:
            case _Phase.PREAMBLE:
                return self._skip_preamble()
            case _Phase.DELIMITED:
                return self._end_delimiter(events)
            case _Phase.HEADER:
                return self._take_header(events)
            case _Phase.FIELD:
                return self._take_field(events)
            case _Phase.FILE:
                return self._take_file(events)
            case _Phase.AFTER:
                self._ignore()
            case _Phase.END:
                self._consume(len(self._buffer))
        return False

    def _skip_preamble(self) -> bool:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            return False
        self._consume(at + len(self._delimiter))
        self._phase = _Phase.DELIMITED
        return True

    def _end_delimiter(self, events: list[Event]) -> bool:
        """Behind a delimiter `--` ends the form and a line end begins a part; with anything else it was none."""
        buffer = self._buffer
        rest = buffer.lstrip(_PADDING)
        over = buffer.startswith(b"--")
        if not over and not rest.startswith(b"\r\n"):
            if len(buffer) < MAX_HEADER_BYTES and (buffer == b"-" or rest in (b"", b"\r")):
                return False
            raise malformed()
        if self._name == "file":
            events.append(FILE_END)
            self._phase = _Phase.AFTER
        else:
            self._consume(2 if over else len(buffer) - len(rest) + 2)
            self._phase = _Phase.END if over else _Phase.HEADER
        return True

    def _take_header(self, events: list[Event]) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_HEADER_BYTES or (end < 0 and len(self._buffer) > MAX_HEADER_BYTES + 3):
            raise malformed()
        if end < 0:
            return False
        name, filename = _part_header(self._buffer[:end])
        if name in self._names:
            raise invalid_argument("A form field is given more than once.", name, None)
        self._names.add(name)
        self._name = name
        self._consume(end + 4)
        if name == "file":
            self._bound_fields(0)
            events.append(FileStart(_basename(filename)))
        self._phase = _Phase.FILE if name == "file" else _Phase.FIELD
        return True

    def _take_field(self, events: list[Event]) -> bool:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            return False
        events.append(Field(self._name, self._buffer[:at]))
        self._consume(at + len(self._delimiter))
        self._phase = _Phase.DELIMITED
        return True

    def _take_file(self, events: list[Event]) -> bool:
        buffer, delimiter = self._buffer, self._delimiter
        at = buffer.find(delimiter)
        if at >= 0:
            self._buffer = buffer[at + len(delimiter) :]
            self._phase = _Phase.DELIMITED
        else:
            # Only what may yet become a delimiter is kept.
            at = buffer.find(b"\r", max(len(buffer) - len(delimiter) + 1, 0))
            while at >= 0 and not delimiter.startswith(buffer[at:]):
                at = buffer.find(b"\r", at + 1)
            if at < 0:
                at = len(buffer)
            self._buffer = buffer[at:]
        if at:
            events.append(buffer[:at] if at < len(buffer) else buffer)
        return self._phase is not _Phase.FILE

    def _ignore(self) -> None:
        self._after_file += len(self._buffer)
        self._buffer = b""
        if self._after_file > MAX_AFTER_BYTES:
            raise malformed()

    def _consume(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self._before_file += count

    def _bound_fields(self, waiting: int) -> None:
        if self._before_file + waiting > MAX_FORM_BYTES:
            raise S3Error("MaxPostPreDataLengthExceededError", extra={"MaxSizeAllowed": MAX_FORM_BYTES})


def _part_header(block: bytes) -> tuple[str, str]:
    """(name in lower case, file name) of a part. Raises MalformedPOSTRequest."""
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        raise malformed() from None
    found: dict[str, str] = {}
    for line in text.split("\r\n"):
        header, colon, value = line.partition(":")
        header = header.lower()
        if not colon or not header.isascii() or header.strip() != header or header in found:
            raise malformed()
        found[header] = value.strip(" \t")
    kind, semicolon, rest = found.get("content-disposition", "").partition(";")
    parameters = _parameters(semicolon + rest)
    # Browsers never encode; to take an encoded file for its bytes would store something else than was sent.
    encoding = found.get("content-transfer-encoding", "binary").lower()
    if (
        kind.strip().lower() != "form-data"
        or parameters is None
        or encoding not in ("binary", "8bit", "7bit")
    ):
        raise malformed()
    name = parameters.get("name", "").lower()
    if not name:
        raise malformed()
    return name, parameters.get("filename", "")


def _basename(filename: str) -> str:
    """Some browsers send folders, of either kind of system: only what follows the last of them counts."""
    return filename.replace("\\", "/").rpartition("/")[2]
