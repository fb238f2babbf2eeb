"""What a workflow's flow run shows while it runs and when it has ended: Prefect artifacts."""

import logging
import re
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException

from catalog import tasks
from catalog.db import Catalog
from catalog.tasks import Progress
from flows.share import Share
from flows.summary import summary_rows

log = logging.getLogger(__name__)

_EVERY_S, _SHARE = 3.0, 0.005


class ProgressBoard:
    """One progress artifact per stage, updated while the stage moves."""

    def __init__(self, catalog: Catalog, workflow_id: int, total: int | None) -> None:
        self._catalog, self._workflow_id, self._total = catalog, workflow_id, total
        self._artifacts: dict[str, UUID] = {}
        self._shown: dict[str, tuple[float, str]] = {}
        self._time = Share(_EVERY_S, _SHARE)

    def update(self, *, force: bool = False) -> None:
        """Show what has changed, every few seconds. Prefect's errors are survived."""
        if not force and not self._time.is_due:
            return
        with self._time.spend(), self._catalog.read() as session:
            rows = tasks.progress(session, self._workflow_id)
        try:
            for row in rows:
                self._show(row)
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("progress not shown", extra={"fault": str(error)})

    def _show(self, row: Progress) -> None:
        stage = row.task.stage
        total = max(row.total, self._total or 0) if row.task.ordinal == 0 else row.total
        percent = round(100.0 * row.done / total, 1) if total else 0.0
        words = ", ".join(f"{count} {state}" for state, count in sorted(row.jobs.items()))
        view = (percent, f"{stage}: {row.task.state}; {words or 'no jobs yet'}")
        if self._shown.get(stage) == view:
            return
        if stage in self._artifacts:
            update_progress_artifact(self._artifacts[stage], percent, description=view[1])
        else:
            key = artifact_key(f"workflow-{self._workflow_id}-{stage}")
            made: Any = create_progress_artifact(percent, key=key, description=view[1])
            self._artifacts[stage] = made
        self._shown[stage] = view


def artifact_key(text: str) -> str:
    """`text` as a key that Prefect takes: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def leave_summary(catalog: Catalog, workflow_id: int, title: str) -> None:
    """Leave the table of stages as an artifact. Prefect's errors are survived."""
    try:
        create_table_artifact(
            summary_rows(catalog, workflow_id),
            key=artifact_key(f"workflow-{workflow_id}-summary"),
            description=title,
        )
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("summary not shown", extra={"fault": str(error)})
