"""The exposition formats: Prometheus' text format 0.0.4 and OpenMetrics 1.0. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/
https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vaultaire.metrics.families import FAMILIES, SECONDS_BOUNDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vaultaire.metrics.families import Family

    Labels = tuple[str, ...]
    Samples = Mapping[tuple[str, ...], float]  # (family, label values) -> value

PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts`: one per bound, and one for what is above all of them; not cumulative."""

    counts: tuple[int, ...]
    sum: float


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header asks for OpenMetrics. Quality values are not compared: whoever names it can read it."""
    return any(part.strip().startswith("application/openmetrics-text") for part in accept.lower().split(","))


def render(
    samples: Samples, histograms: Mapping[tuple[str, ...], Histogram], *, openmetrics: bool = False
) -> bytes:
    """All families that have a sample, in the order of `FAMILIES`, samples in that of their labels."""
    by_family: dict[str, dict[Labels, float | Histogram]] = {}
    for source in (samples, histograms):
        for (name, *labels), value in source.items():
            by_family.setdefault(name, {})[tuple(labels)] = value
    lines: list[str] = []
    for family in FAMILIES:
        found = by_family.get(family.name)
        if found:
            name = family.name.removesuffix("_total") if openmetrics else family.name
            lines.append(f"# HELP {name} {family.help}")
            lines.append(f"# TYPE {name} {family.type}")
            for key in sorted(found):
                lines += _lines(family, key, found[key])
    if openmetrics:
        lines.append("# EOF")
    return "".join(f"{line}\n" for line in lines).encode()


def _lines(family: Family, labels: Labels, value: float | Histogram) -> Iterator[str]:
    pairs = [f'{name}="{text.translate(_ESCAPES)}"' for name, text in zip(family.labels, labels, strict=True)]
    if not isinstance(value, Histogram):
        yield f"{family.name}{_braces(pairs)} {_number(value)}"
        return
    running = 0
    for bound, count in zip((*SECONDS_BOUNDS, None), value.counts, strict=True):
        running += count
        edge = "+Inf" if bound is None else repr(bound)
        bounded = [*pairs, f'le="{edge}"']
        yield f"{family.name}_bucket{_braces(bounded)} {running}"
    yield f"{family.name}_sum{_braces(pairs)} {_number(value.sum)}"
    yield f"{family.name}_count{_braces(pairs)} {running}"


def _braces(pairs: list[str]) -> str:
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
