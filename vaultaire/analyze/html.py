"""The answer as one page: figures, charts in SVG, tables. Nothing is loaded from anywhere, no script runs.

Every name comes from a disk or a server and is escaped; a policy in the head forbids whatever would get through. Pure.
Colours follow the reader's scheme; charts carry their figures as text, so that none depends on colour alone.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from vaultaire.analyze.report import bounds, is_exact
from vaultaire.cli.output import binary_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultaire.analyze.curve import Point
    from vaultaire.analyze.report import Answer, Group
    from vaultaire.analyze.tally import Shares

MAX_ROWS: Final = 50

_STYLE: Final = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2024;--dim:#5f6870;--line:#d9dee3;--card:#f6f8fa;
--stored:#2f6fb5;--dedup:#2e8b57;--compression:#c9891a;--prefix:#8a5fb0;--metadata:#c2504a}
@media(prefers-color-scheme:dark){:root{--bg:#15181b;--fg:#e4e8eb;--dim:#98a2ab;--line:#343b42;--card:#1e2328;
--stored:#5b9be0;--dedup:#53b886;--compression:#e0ab4a;--prefix:#b18bd6;--metadata:#e27b75}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem 1rem 3rem}h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2.2rem 0 .6rem}p{margin:.4rem 0}.dim{color:var(--dim)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.7rem;margin:1.2rem 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
.card b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}.card span{color:var(--dim);font-size:.85rem}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;margin:.5rem 0;font-size:.9rem}
.key i{display:inline-block;width:.8rem;height:.8rem;border-radius:.15rem;margin-right:.4rem;vertical-align:-.05rem}
svg{display:block;width:100%}
.stored{fill:var(--stored);background:var(--stored)}.dedup{fill:var(--dedup);background:var(--dedup)}
.compression{fill:var(--compression);background:var(--compression)}.prefix{fill:var(--prefix);background:var(--prefix)}
.metadata{fill:var(--metadata);background:var(--metadata)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--dim);font-weight:600}th:first-child,td:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere;
min-width:6rem}td.bar{width:9rem;min-width:6rem}td.wide{width:50%;min-width:6rem}.warning{border-left:.25rem solid var(--compression);background:var(--card);
padding:.5rem .8rem;margin:.5rem 0;border-radius:.25rem;overflow-wrap:anywhere}
"""

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_BAR_WIDTH: Final = 1000


def page(answer: Answer) -> str:
    """A whole document, UTF-8."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>Vaultaire: {_text(answer.source)}</title><style>{_STYLE}</style></head><body><main>",
        f'<p class="dim">vaultaire analyze</p><h1>{_text(answer.source)}</h1>',
        *_state(answer),
        _cards(answer),
        _split(answer),
        *(
            f'<p class="warning"><b>{each.share:.0%} {_text(each.kind)}</b>: {_text(each.text)}</p>'
            for each in answer.warnings
        ),
        *_groups("By folder", answer.folders),
        *_groups("By type", answer.types),
        *_curve(answer.curve),
        *_left_out(answer),
        "</main></body></html>\n",
    ]
    return "\n".join(parts)


def _text(text: str) -> str:
    """Escaped; lone surrogates, which UTF-8 has not, are spelled out."""
    return escape(text.encode(errors="backslashreplace").decode())


def _state(answer: Answer) -> list[str]:
    told = []
    if answer.interrupted:
        told.append("It was interrupted: these are the figures of what was read until then.")
    if answer.failure is not None:
        told.append(f"The rest could not be read: {answer.failure}")
    if not is_exact(answer):
        low, high = bounds(answer)
        told.append(
            "An estimate from a sample"
            + (
                f": with 95 % confidence {binary_size(low)} to {binary_size(high)} would be stored."
                if low is not None and high is not None
                else ", too small to say how far off it is."
            )
        )
    return [f'<p class="warning">{_text(each)}</p>' for each in told]


def _cards(answer: Answer) -> str:
    shares = answer.shares
    cards = (
        (binary_size(shares.logical_bytes), f"in {answer.objects:,} objects"),
        (binary_size(shares.stored_bytes), "would be stored"),
        (f"x{answer.ratio:.2f}", "in all"),
        (f"x{answer.dedup_ratio:.2f}", "deduplication"),
        (f"x{answer.compression_ratio:.2f}", "compression, metadata included"),
    )
    inner = "".join(f'<div class="card"><b>{value}</b><span>{label}</span></div>' for value, label in cards)
    return f'<div class="cards">{inner}</div>'


def _pieces(shares: Shares) -> list[tuple[str, int]]:
    """What a bar is made of, in order. A compression that costs is none."""
    return [
        ("stored", shares.payload_bytes),
        ("metadata", shares.metadata_bytes),
        ("compression", max(0, shares.compression_saved_bytes)),
        ("prefix", max(0, shares.prefix_saved_bytes)),
        ("dedup", shares.dedup_saved_bytes),
    ]


_NAMES: Final = {
    "stored": "stored data",
    "metadata": "stored metadata",
    "compression": "saved by compression",
    "prefix": "saved by prefix frames",
    "dedup": "saved by deduplication",
}


def _bar(shares: Shares, height: int) -> str:
    pieces = _pieces(shares)
    whole = max(1, sum(size for _, size in pieces))
    drawn, position = [], 0.0
    for name, size in pieces:
        width = size / whole * _BAR_WIDTH
        if size:
            drawn.append(
                f'<rect class="{name}" x="{position:.2f}" width="{width:.2f}" height="{height}">'
                f"<title>{_NAMES[name]}: {binary_size(size)}</title></rect>"
            )
        position += width
    label = ", ".join(f"{_NAMES[name]} {binary_size(size)}" for name, size in pieces if size)
    return (
        f'<svg viewBox="0 0 {_BAR_WIDTH} {height}" height="{height}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{"".join(drawn)}</svg>'
    )


def _split(answer: Answer) -> str:
    keys = "".join(
        f'<span><i class="{name}"></i>{_NAMES[name]} {binary_size(size)}</span>'
        for name, size in _pieces(answer.shares)
        if size
    )
    return f'<h2>Where the bytes go</h2>{_bar(answer.shares, 36)}<div class="key">{keys}</div>'


def _groups(title: str, groups: Sequence[Group]) -> list[str]:
    if not groups:
        return []
    rows = []
    for group in groups[:MAX_ROWS]:
        shares = group.shares
        ratio = f"x{shares.logical_bytes / shares.stored_bytes:.2f}" if shares.stored_bytes else "-"
        sizes = (
            shares.logical_bytes,
            shares.dedup_saved_bytes,
            max(0, shares.compression_saved_bytes),
            shares.metadata_bytes,
            shares.stored_bytes,
        )
        cells = "".join(f"<td>{binary_size(size)}</td>" for size in sizes)
        rows.append(
            f'<tr><td>{_text(group.name)}</td><td class="bar">{_bar(shares, 14)}</td><td>{group.objects:,}</td>'
            f"{cells}<td>{ratio}</td></tr>"
        )
    heads = ("", "", "objects", "logical", "dedup", "compression", "metadata", "stored", "ratio")
    head = "".join(f"<th>{each}</th>" for each in heads)
    more = len(groups) - MAX_ROWS
    rest = [f'<p class="dim">and {more:,} more: --json has them</p>'] if more > 0 else []
    return [
        f'<h2>{title}</h2><div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>',
        *rest,
    ]


def _curve(points: Sequence[Point]) -> list[str]:
    if not points:
        return []
    most = max(1, *(point.stored_bytes for point in points))
    rows = []
    for point in points:
        width = point.stored_bytes / most * _BAR_WIDTH
        opacity, how = (1, "measured") if point.measured else (0.6, "estimated")
        rows.append(
            f'<tr><td>{binary_size(point.average_bytes)}</td><td class="wide"><svg viewBox="0 0 {_BAR_WIDTH} 14" '
            f'height="14" preserveAspectRatio="none" role="presentation"><rect class="stored" width="{width:.2f}" '
            f'height="14" opacity="{opacity}"></rect></svg></td><td>{binary_size(point.stored_bytes)}</td>'
            f"<td>{binary_size(point.unique_bytes)}</td><td>{point.chunks:,}</td><td>{how}</td></tr>"
        )
    head = "".join(f"<th>{each}</th>" for each in ("average", "", "stored", "unique", "chunks", ""))
    return [
        '<h2>By chunk size</h2><p class="dim">What would be stored with other average chunk sizes. New bytes and chunks '
        "are counted, their compression is taken over from the measured size.</p>"
        f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
    ]


def _left_out(answer: Answer) -> list[str]:
    told = [f"{what}: {count:,}" for what, count in sorted(answer.notes.items())]
    told += [f"{failed.key}: {failed.why}" for failed in answer.failures[:MAX_ROWS]]
    if answer.failed > MAX_ROWS:
        told.append(f"and {answer.failed - MAX_ROWS:,} more: --json has them")
    if not told:
        return []
    return [
        "<h2>Not counted, or counted apart</h2><ul>",
        *(f"<li>{_text(each)}</li>" for each in told),
        "</ul>",
    ]
