"""
The table of a bench: medians with their spread, ratios, floors and whether they are met. Pure.

Imported by ``bench.course`` and ``bench.__main__``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bkscaler.bench.peers import BKSCALER

Samples = Mapping[tuple[str, str], Sequence[float]]
"""What was measured, one value for each round, by the row's key and the proxy's name."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """
    One thing that is measured.

    :param key: names it in the samples.
    :param title: what it is, with its unit.
    :param reference: the proxy that bkscaler is held against; None when the floor is a plain value.
    :param floor: what bkscaler must reach, as a ratio to the reference or as a value; None: nothing.
    :param aim: what it should reach.
    :param more_is_better: False for costs.
    """

    key: str
    title: str
    reference: str | None = None
    floor: float | None = None
    aim: float | None = None
    more_is_better: bool = False


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """
    What becomes of one row.

    :param ratio: bkscaler's median to the reference's; None without either.
    :param verdict: in words, ``""`` when nothing is asked.
    """

    ratio: float | None
    verdict: str


def judge(row: Row, samples: Samples) -> Judgement:
    """Hold bkscaler's median against what is asked of it."""
    ours = samples.get((row.key, BKSCALER))
    theirs = samples.get((row.key, row.reference)) if row.reference else None
    ratio = median(ours) / median(theirs) if ours and theirs else None
    if row.floor is None and row.aim is None:
        return Judgement(ratio=ratio, verdict="")
    if not ours or (row.reference and ratio is None):
        return Judgement(ratio=ratio, verdict="not measured")
    value = median(ours) if ratio is None else ratio
    if row.aim is not None and _reaches(row, value, row.aim):
        verdict = "aim met"
    elif row.floor is None or _reaches(row, value, row.floor):
        verdict = "floor met" if row.floor is not None else "aim missed"
    else:
        verdict = "FLOOR MISSED"
    return Judgement(ratio=ratio, verdict=verdict)


def _reaches(row: Row, value: float, limit: float) -> bool:
    return value >= limit if row.more_is_better else value <= limit


def number(value: float) -> str:
    """Write a number with three digits that count, or all before the point."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def cell(values: Sequence[float] | None) -> str:
    """Write a median with the least and the greatest of its values."""
    if not values:
        return ""
    if len(values) == 1:
        return number(values[0])
    return f"{number(median(values))} ({number(min(values))}-{number(max(values))})"


def asked(row: Row, limit: float | None) -> str:
    """Write a floor or an aim."""
    if limit is None:
        return ""
    sign = "≥" if row.more_is_better else "≤"
    return f"{sign} {limit:g} x {row.reference}" if row.reference else f"{sign} {limit:g}"


def table(rows: Sequence[Row], names: Sequence[str], samples: Samples) -> list[str]:
    """
    Lay the table out, in Markdown. Rows and proxies of which nothing is known are left out.

    :param names: of the proxies, in the order of their columns.
    """
    names = [name for name in names if any(known == name for _, known in samples)]
    lines = [["median (least-greatest)", *names, "ratio", "floor", "aim", ""]]
    for row in rows:
        if any(key == row.key for key, _ in samples):
            judgement = judge(row, samples)
            lines.append(
                [
                    row.title,
                    *(cell(samples.get((row.key, name))) for name in names),
                    "" if judgement.ratio is None else f"{judgement.ratio:.2f}",
                    asked(row, row.floor),
                    asked(row, row.aim),
                    judgement.verdict,
                ]
            )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return [
        f"| {' | '.join(text.ljust(width) for text, width in zip(line, widths, strict=True))} |"
        for line in lines
    ]
