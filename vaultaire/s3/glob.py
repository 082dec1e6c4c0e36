"""Wildcards: `*` for any run of characters, `?` for exactly one, as policies and CORS rules have them. Pure.

Patterns come from whoever configures a bucket, texts from anybody: no pattern makes a text expensive. Without `?` the
pieces between the stars are searched from left to right, each once (`str.find` is linear, CPython 3.10 and later);
with `?` an automaton with one bit per pattern character takes the text in one pass. A regular expression, or matching
with backtracking, would take the product of both lengths, or worse.

Inside, wildcards are two characters that no text has (`wildcards`): so a `*` that stands for itself can be told apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# Lone surrogates: what comes from UTF-8 or Latin-1 bytes has none, "surrogateescape" makes only those from U+DC80.
_ANY, _ONE = "\ud800", "\ud801"


def wildcards(pattern: str, *, single: bool = True) -> str:
    """`pattern` with its wildcards in the inner form; `single` False: `?` stands for itself."""
    pattern = pattern.replace("*", _ANY)
    return pattern.replace("?", _ONE) if single else pattern


@dataclass(frozen=True, slots=True)
class Glob:
    """One pattern. `single` False: `?` stands for itself (CORS). `fold`: case does not matter.

    `inner`: the pattern has its wildcards in the form of `wildcards` already, and `*` and `?` in it are themselves.
    """

    pattern: str
    single: bool = True
    fold: bool = False
    inner: bool = False
    _pieces: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _automaton: _Automaton | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pattern = self.pattern if self.inner else wildcards(self.pattern, single=self.single)
        pieces = tuple((pattern.lower() if self.fold else pattern).split(_ANY))
        object.__setattr__(self, "_pieces", pieces)
        object.__setattr__(self, "_automaton", _Automaton(pieces) if _ONE in pattern else None)

    @property
    def fixed(self) -> bool:
        """It matches one text only: itself."""
        return len(self._pieces) == 1 and self._automaton is None

    def matches(self, text: str) -> bool:
        """Whether the whole of `text` is matched."""
        if self.fold:
            text = text.lower()
        if self._automaton is not None:
            return self._automaton.matches(text)
        pieces = self._pieces
        if len(pieces) == 1:
            return text == pieces[0]
        first, last = pieces[0], pieces[-1]
        if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
            return False
        position, end = len(first), len(text) - len(last)
        for piece in pieces[1:-1]:
            found = text.find(piece, position, end)
            if found < 0:
                return False
            position = found + len(piece)
        return True


class _Automaton:
    """Bit i of the state: the first i characters of the pattern (stars not counted) are matched so far.

    A star before character i lets state i keep itself, whatever comes. Baeza-Yates and Gonnet, "A new approach to text
    searching", CACM 1992.
    """

    __slots__ = ("_accepting", "_any", "_loops", "_masks")

    def __init__(self, pieces: tuple[str, ...]) -> None:
        masks: dict[str, int] = {}
        anything = loops = length = 0
        for number, piece in enumerate(pieces):
            if number:
                loops |= 1 << length
            for character in piece:
                if character == _ONE:
                    anything |= 1 << length
                else:
                    masks[character] = masks.get(character, 0) | 1 << length
                length += 1
        self._masks, self._any, self._loops = masks, anything, loops
        self._accepting = 1 << length

    def matches(self, text: str) -> bool:
        masks, anything, loops, state = self._masks, self._any, self._loops, 1
        for character in text:
            state = (state & (masks.get(character, 0) | anything)) << 1 | state & loops
            if not state:
                return False
        return bool(state & self._accepting)
