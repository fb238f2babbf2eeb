"""How storages have filled: a table with a plot of each, on Prefect's page."""

import base64
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

import httpx
import leather
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import PrefectException

from catalog import durations, filling, usage
from catalog.counts import count_of
from catalog.db import Catalog
from catalog.filling import Fill
from flows.progress import artifact_key

log = logging.getLogger(__name__)

KEY = "storages"
SHOWN_S = 7 * 86400.0
_MOST_POINTS = 120
_WIDTH, _HEIGHT = 760, 320
_USED, _QUOTA = "#4e79a7", "#e15759"
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))

Point = tuple[datetime, int]
"""A time, and bytes."""


def leave_page(catalog: Catalog) -> bool:
    """Show what is on the storages, and how that was in the last week; whether Prefect took it."""
    fills = filling.fills(catalog)
    with catalog.read() as session:
        histories = [
            (fill, thinned(usage.samples(session, fill.storage_id, SHOWN_S))) for fill in fills
        ]
    try:
        create_markdown_artifact(
            page(histories),
            key=artifact_key(KEY),
            description="; ".join(fill.warning for fill, _ in histories if fill.warning)
            or f"{count_of(len(histories), 'storage')}",
        )
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("storages not shown", extra={"fault": str(error)})
        return False
    return True


def page(histories: Sequence[tuple[Fill, Sequence[Point]]]) -> str:
    """A table of the storages in Markdown, then plots of those that have a history."""
    lines = [
        "| storage | role | files | size | of | grows per s | full in |",
        "|---|---|---|---|---|---|---|",
    ]
    for fill, _ in histories:
        cells = [
            fill.storage,
            fill.role,
            f"{fill.files}",
            _size(fill.size_bytes),
            _size(fill.capacity_bytes) if fill.away is None else "doesn't answer",
            _size(fill.growth_bytes_per_s),
            "–" if fill.full_in_s is None else durations.words(fill.full_in_s),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for fill, points in histories:
        # Two points at least make a line, and one that was never used is no sight.
        if len(points) > 1 and any(size for _, size in points):
            content = base64.b64encode(draw(fill, points).encode()).decode()
            lines += ["", f"![{fill.storage}](data:image/svg+xml;base64,{content})"]
    return "\n".join(lines) + "\n"


def draw(fill: Fill, points: Sequence[Point]) -> str:
    """An SVG of the bytes on a storage over time, in UTC, with its quota where it has one."""
    most = max(size for _, size in points)
    factor, unit = _unit(most)
    chart = leather.Chart(f"{fill.storage}, {unit} (UTC)")
    # The library knows times without a zone only.
    line = [(at.astimezone(UTC).replace(tzinfo=None), size / factor) for at, size in points]
    chart.add_line(line, name="used", width=2, stroke_color=_USED)
    if fill.has_quota and fill.capacity_bytes is not None:
        quota = fill.capacity_bytes / factor
        ends = [(line[0][0], quota), (line[-1][0], quota)]
        chart.add_line(ends, name="quota", width=1, stroke_color=_QUOTA)
        most = max(most, fill.capacity_bytes)
    chart.add_y_scale(0, max(1.0, most / factor))
    return str(chart.to_svg(width=_WIDTH, height=_HEIGHT))


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most so many of the points as a plot can show, the last among them."""
    step = -(-len(points) // _MOST_POINTS) or 1
    return list(points[::-1][::step])[::-1]


def _size(count_bytes: float | None) -> str:
    if count_bytes is None:
        return "–"
    factor, unit = _unit(abs(count_bytes))
    return f"{count_bytes / factor:.{0 if unit == 'B' else 1}f} {unit}"


def _unit(count_bytes: float) -> tuple[float, str]:
    return next(found for found in _UNITS if count_bytes >= found[0] or found[0] == 1.0)
