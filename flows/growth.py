"""How storages have filled, as plots on Prefect's page."""

import base64
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

import httpx
import leather
from prefect.artifacts import create_image_artifact
from prefect.exceptions import PrefectException

from catalog import filling, usage
from catalog.db import Catalog
from catalog.filling import Fill
from flows.progress import artifact_key

log = logging.getLogger(__name__)

SHOWN_S = 7 * 86400.0
_MOST_POINTS = 120
_WIDTH, _HEIGHT = 760, 320
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))

Point = tuple[datetime, int]
"""A time, and bytes."""


def leave_plots(catalog: Catalog) -> list[str]:
    """Show, for each storage, the bytes of the last week; gives the keys of what is shown.

    Prefect's errors are survived.
    """
    with catalog.read() as session:
        ids = {item.storage: item.storage_id for item in usage.of_storages(session)}
        plots = [
            (fill, thinned(usage.samples(session, ids[fill.storage], SHOWN_S)))
            for fill in filling.fills(session)
        ]
    keys = []
    for fill, points in plots:
        if len(points) < 2:
            continue  # Nothing to draw a line through, yet.
        key = artifact_key(f"storage-{fill.storage}")
        content = base64.b64encode(draw(fill, points).encode()).decode()
        try:
            create_image_artifact(
                f"data:image/svg+xml;base64,{content}", key=key, description=_words(fill)
            )
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("plot not shown", extra={"fault": str(error)})
            continue
        keys.append(key)
    return keys


def draw(fill: Fill, points: Sequence[Point]) -> str:
    """An SVG of the bytes on a storage over time, in UTC, with its quota where it has one."""
    most = max(size for _, size in points)
    factor, unit = _unit(most)
    chart = leather.Chart(f"{fill.storage}, {unit} (UTC)")
    # The library knows times without a zone only.
    line = [(at.astimezone(UTC).replace(tzinfo=None), size / factor) for at, size in points]
    chart.add_line(line, name="used", width=2)
    if fill.has_quota and fill.capacity_bytes is not None:
        quota = fill.capacity_bytes / factor
        chart.add_line([(line[0][0], quota), (line[-1][0], quota)], name="quota", width=1)
        most = max(most, fill.capacity_bytes)
    chart.add_y_scale(0, max(1.0, most / factor))
    return str(chart.to_svg(width=_WIDTH, height=_HEIGHT))


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most so many of the points as a plot can show, the last among them."""
    step = -(-len(points) // _MOST_POINTS) or 1
    return list(points[::-1][::step])[::-1]


def _words(fill: Fill) -> str:
    factor, unit = _unit(fill.size_bytes)
    words = f"{fill.storage}: {fill.files} files, {fill.size_bytes / factor:.1f} {unit}"
    if fill.growth_bytes_per_s is not None:
        factor, unit = _unit(abs(fill.growth_bytes_per_s))
        words += f", growing by {fill.growth_bytes_per_s / factor:.1f} {unit}/s"
    return f"{words}; {fill.warning}" if fill.warning else words


def _unit(size_bytes: float) -> tuple[float, str]:
    return next(found for found in _UNITS if size_bytes >= found[0] or found[0] == 1.0)
