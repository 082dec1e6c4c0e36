"""What the laboratory knows of a store from what the clients said, and its judgement of what a restart shows.

After a crash every client's part of the store must be its state before or after the one operation that was under way:
nothing acknowledged lost or altered, nothing unacknowledged in pieces. Then what was found is what is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.crash.model import Operation, State, apply, same

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(slots=True)
class Knowledge:
    states: dict[str, State]
    pending: dict[str, Operation] = field(default_factory=dict)
    uncertain: dict[str, list[Operation]] = field(
        default_factory=dict
    )  # failed in a way that leaves both possible
    acknowledged: int = 0
    failed: int = 0
    poisoned: bool = False

    @classmethod
    def of(cls, names: Sequence[str]) -> Knowledge:
        return cls({name: State() for name in names})

    @property
    def names(self) -> list[str]:
        return sorted(self.states)

    def hear(self, message: tuple[Any, ...]) -> None:
        """Take in what a client said: see `tests.crash.workload`. Other messages change nothing."""
        match message:
            case ("begin", name, operation):
                self.pending[name] = operation
            case ("done", name, told):
                self.states[name] = apply(self.states[name], self.pending.pop(name), told)
                self.acknowledged += 1
            case ("failed", name, kind, _):
                operation = self.pending.pop(name, None)
                self.failed += 1
                # Every other error says that nothing was committed; a poisoned store cannot always know.
                self.poisoned |= kind == "StorePoisoned"
                if operation is not None and kind == "StorePoisoned":
                    self.uncertain.setdefault(name, []).append(operation)
            case ("found", states):
                self.states = dict(states)
                self.pending.clear()
                self.uncertain.clear()

    def allowed(self, name: str) -> list[State]:
        """Every state that the client's part may be in."""
        possible = [self.states[name]]
        pending = self.pending.get(name)
        for operation in [*self.uncertain.get(name, ()), *([] if pending is None else [pending])]:
            possible += [apply(state, operation) for state in possible]
        return possible

    def judge(self, found: Mapping[str, State]) -> str | None:
        """What is wrong with that; None if nothing is."""
        for name in self.names:
            if not any(same(found[name], state) for state in self.allowed(name)):
                return f"client {name}: {difference(found[name], self.states[name])}; pending: {self.pending.get(name)}"
        return None


def difference(found: State, known: State) -> str:
    """Where they differ, in words."""
    said = []
    for part in ("plain", "versions", "uploads"):
        have, want = getattr(found, part), getattr(known, part)
        said += [
            f"{part} {key!r}: found {have.get(key)}, known {want.get(key)}"
            for key in sorted(have.keys() | want.keys())
            if have.get(key) != want.get(key)
        ]
    return "; ".join(said) or "no difference"
