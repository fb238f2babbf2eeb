"""Fixtures that give a test the means to make as many of a thing as it wants."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol, TypeVar


class Closes(Protocol):
    """What has to be closed."""

    def close(self) -> None: ...


T = TypeVar("T", bound=Closes)


def made_in(folder: Path, kind: Callable[..., T]) -> Iterator[Callable[..., T]]:
    """What makes such things in a folder; all are closed once the test is over."""
    with ExitStack() as stack:

        def make(**how: Any) -> T:
            return stack.enter_context(closing(kind(folder, **how)))

        yield make
