"""The task generator: datasets that match an `auto` template become workflows, once.

It takes datasets that are OPEN, or were closed since the template was activated. Where several
templates match, the highest precedence wins, then the mask that says most, then the name.
"""

import logging
import time
from collections.abc import Callable, Sequence

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from sqlmodel import Session

from catalog import matches, workflows
from catalog.db import Catalog
from catalog.matches import Unmatched
from catalog.outage import isolated, sentence
from catalog.templates import TemplateInfo
from catalog.troubles import Of, Troubles
from flows.away import is_server_away
from flows.deployments import sync_templates
from flows.runs import start_run
from flows.submit import Submission, submit

log = logging.getLogger(__name__)

EVERY_S = 0.5
_AGAIN_S = 30.0
_MOST = 200


def _choose(known: Sequence[TemplateInfo], item: Unmatched) -> TemplateInfo | None:
    """The template for a dataset, if there is one; none takes by itself what is incomplete."""
    return None if item.incomplete else matches.choose(known, item.name, item.derived)


class Generator:
    """Takes turns of it."""

    def __init__(self, catalog: Catalog, fence: Callable[[Session], None]) -> None:
        self._catalog, self._fence = catalog, fence
        self._refused: dict[int, float] = {}
        self._troubles = Troubles(catalog, "match")

    def turn(self) -> float:
        """Submit what matches; gives the seconds until the next turn."""
        with self._catalog.read() as session:
            known = matches.auto_templates(session)
            self._refused = {
                dataset: until
                for dataset, until in self._refused.items()
                if until > time.monotonic()
            }
            found = matches.unmatched(session, known, besides=self._refused, limit=_MOST)
        if len(found) < _MOST:
            # Others were submitted by hand, or are gone.
            self._troubles.only(Of.DATASET, self._refused.keys() | {item.id for item in found})
        chosen = [(item, _choose(known, item)) for item in found]
        self._settle([item.id for item, template in chosen if template is None])
        begun = []
        for item, template in chosen:
            if template is not None:
                begun += self._submit(item, template.ref)
        self._start(begun)
        return 0.05 if len(found) == _MOST else EVERY_S

    def _settle(self, datasets: Sequence[int]) -> None:
        """These were looked at."""
        if datasets:
            with self._catalog.write() as session:
                self._fence(session)
                matches.settle(session, datasets)

    def _submit(self, item: Unmatched, template: str) -> list[int]:
        """The workflow of a dataset; [] where it can't be defined now."""
        found: list[int] = []

        def refuse(error: Exception) -> None:
            self._refused[item.id] = time.monotonic() + _AGAIN_S
            told = f"template {template} can't be applied to it: {sentence(error)}"
            self._troubles.note(Of.DATASET, item.id, item.name, told)

        with isolated("dataset", item.name, refuse):
            workflow, new = submit(
                self._catalog, Submission(template, item.name, {}, by_itself=True)
            )
            self._settle([item.id])
            self._troubles.over(Of.DATASET, item.id)
            if new:
                log.info("workflow defined", extra={"workflow": workflow, "dataset": item.name})
                found.append(workflow)
        return found

    def _start(self, begun: Sequence[int]) -> None:
        """Start their flow runs; the watchdog does where the server is away."""
        if not begun:
            return
        try:
            with get_client(sync_client=True) as client:
                sync_templates(client, self._catalog)
                for workflow in begun:
                    with isolated("workflow", workflow, outage=is_server_away):
                        with self._catalog.read() as session:
                            info = workflows.get(session, workflow)
                        start_run(client, self._catalog, info)
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("flow runs are left to the watchdog", extra={"why": str(error)})
