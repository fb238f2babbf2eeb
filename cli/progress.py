"""Progress bars, on a terminal and only where a wait gets long."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from cli.output import console

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")

SHOW_AFTER_S = 2.0


class Bar:
    """A bar on stderr that appears once a wait has lasted for two seconds."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what, self._total, self._done = what, total, 0
        self._begun = time.monotonic()
        self._console = console(err=True)
        self._shown: Progress | None = None

    def __enter__(self) -> "Bar":
        """Begin to count."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        if self._shown is not None:
            self._shown.stop()

    def advance(self, count: int = 1) -> None:
        """Say that so many more are done."""
        self._done += count
        if self._shown is None:
            waited_s = time.monotonic() - self._begun
            if waited_s < SHOW_AFTER_S or not self._console.is_terminal:
                return
            self._show()
        assert self._shown is not None
        self._shown.update(self._shown.task_ids[0], completed=self._done)

    def _show(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
        self._shown = Progress(*columns, console=self._console)
        self._shown.add_task(self._what, total=self._total)
        self._shown.start()


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner on stderr while the block lasts, for a wait whose length nobody knows."""
    target = console(err=True)
    if not target.is_terminal:
        yield
        return
    with target.status(what):
        yield


def counted(items: Iterable[Item], what: str, total: int | None) -> Iterator[Item]:
    """The items, with a bar that counts them."""
    with Bar(what, total) as bar:
        for item in items:
            yield item
            bar.advance()
