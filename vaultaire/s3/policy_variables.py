"""Policy variables: `${aws:username}` and its kin, in resources and in the values of String and Arn conditions. Pure.

A variable is replaced by the request's one value of that condition key, taken literally: a `*` in it is no wildcard.
`${*}`, `${?}` and `${$}` are these characters themselves. A key that the request does not have (or has several values
of) is replaced by the default, `${aws:username, 'nobody'}`; without one the whole text has no value, and nothing equals
it or is like it.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from vaultaire.s3.glob import wildcards

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Facts = Mapping[str, tuple[str, ...]]

MARK = "${"
_MAX_FILLED = (
    64 << 10
)  # characters; nothing that is compared with it is longer, but a value may come many times
# No part of it can begin where another may go on: a failing match is as quick as one that fits.
_VARIABLE = re.compile(
    r"\$\{(?:(?P<itself>[*?$])|(?P<key>[^,'{}]+)(?:,\s*'(?P<default>(?:[^']|'')*)'\s*)?)\}"
)


class Variable(NamedTuple):
    key: str  # as facts have it
    default: str | None


@dataclass(frozen=True, slots=True)
class Template:
    """A text with variables in it."""

    pieces: tuple[str | Variable, ...]

    @property
    def variables(self) -> tuple[Variable, ...]:
        return tuple(piece for piece in self.pieces if isinstance(piece, Variable))

    def fill(self, facts: Facts) -> str | None:
        """The text for this request; None if a variable has no value, or if it becomes absurdly long."""
        filled: list[str] = []
        room = _MAX_FILLED
        for piece in self.pieces:
            if isinstance(piece, Variable):
                found = facts.get(piece.key, ())
                text = found[0] if len(found) == 1 else piece.default
            else:
                text = piece
            room -= 0 if text is None else len(text)
            if text is None or room < 0:
                return None
            filled.append(text)
        return "".join(filled)


def parse_template(text: str, fact_of: Callable[[str], str], *, pattern: bool) -> Template:
    """`fact_of`: the name of a condition key among facts; it raises for one that cannot be a variable.

    `pattern`: the wildcards of `text` become those of `glob.wildcards`. Raises ValueError for a `${` that begins no
    variable.
    """
    pieces: list[str | Variable] = []
    position = 0
    while (start := text.find(MARK, position)) >= 0:
        found = _VARIABLE.match(text, start)
        if found is None:
            raise ValueError(f"{text[start:]} begins with no policy variable")
        pieces.append(_literal(text[position:start], pattern=pattern))
        if found["itself"] is not None:
            pieces.append(found["itself"])
        else:
            default = found["default"]
            quoted = None if default is None else default.replace("''", "'")
            pieces.append(Variable(fact_of(found["key"].strip()), quoted))
        position = found.end()
    pieces.append(_literal(text[position:], pattern=pattern))
    return Template(tuple(piece for piece in pieces if piece))


def _literal(text: str, *, pattern: bool) -> str:
    return wildcards(text) if pattern else text
