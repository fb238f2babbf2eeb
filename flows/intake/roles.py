"""Roles: what a path is to a rule, by the rule's patterns alone."""

import re
from dataclasses import dataclass
from functools import lru_cache

from catalog.errors import BadName
from catalog.names import check_name, check_path, is_hidden, is_path, shown
from catalog.ownpaths import is_own
from catalog.patterns import Pattern, named
from catalog.refs import StorageInfo, StorageRole

_CONTROL = re.compile("[\x00-\x1f\x7f]")
_REMEMBERED = 50_000


@dataclass(frozen=True)
class Errand:
    """What to look for: a rule's patterns, and the markers of all rules of that storage."""

    storage: StorageInfo
    prefix: str
    pattern: str
    dataset: str
    end_pattern: str | None
    markers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Role:
    """A path is that of a file of a dataset, or of its marker.

    `fault` says why it can't be one all the same; `dataset` is None where no name can be told.
    """

    dataset: str | None
    is_marker: bool
    fault: str = ""


class Roles:
    """The roles of paths for one errand. Those of many are remembered: most come at each look.

    Raises `BadInput` for patterns that can't be used.
    """

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        Pattern(errand.pattern, "--pattern")
        self._markers = [Pattern(text, "--end") for text in errand.markers]
        self._known: dict[str, Role | None] = {}

    def of(self, path: str) -> Role | None:
        """What a path is; None for one that is nothing to the rule."""
        try:
            return self._known[path]
        except KeyError:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            role = self._known[path] = self._judge(path)
            return role

    def dataset_of(self, path: str) -> str | None:
        """The dataset that a path, be it a folder's or a link's, names; None for no such path."""
        errand = self._errand
        return self._named(errand.pattern, path) or self._named(errand.end_pattern, path)

    def dataset_of_marker(self, path: str) -> str | None:
        """The dataset of a marker of that path."""
        return self._named(self._errand.end_pattern, path)

    def dataset_of_file(self, path: str) -> str | None:
        """The dataset of a file of that path, also of one that can't be used."""
        return self._named(self._errand.pattern, path)

    def _judge(self, path: str) -> Role | None:
        if is_hidden(path) or self._is_output(path):
            return None
        if (ended := self._named(self._errand.end_pattern, path)) is not None:
            return _checked(path, ended, is_marker=True)
        if any(marker.fullmatch(path) is not None for marker in self._markers):
            return None
        name = self._named(self._errand.pattern, path)
        return None if name is None else _checked(path, name, is_marker=False)

    def _is_output(self, path: str) -> bool:
        """Whether it is, or will soon be registered as, what a job made: nothing that arrived."""
        return self._errand.storage.role is not StorageRole.INPUT and is_own(path)

    def _named(self, pattern: str | None, path: str) -> str | None:
        if pattern is None:
            return None
        # Else a name with a line feed would be left out without a word: `.` doesn't take one.
        plain = path if is_path(path) else _CONTROL.sub("\ufffd", path)
        return named(pattern, self._errand.dataset, plain)


@lru_cache(maxsize=16)
def roles_of(errand: Errand) -> Roles:
    """The roles of an errand, remembered from look to look. Raises `BadInput` as `Roles` does."""
    return Roles(errand)


def _checked(path: str, dataset: str, *, is_marker: bool) -> Role:
    try:
        check_name("dataset", dataset)
    except BadName as error:
        return Role(None, is_marker, str(error))
    try:
        check_path("path", path)
    except BadName as error:
        told = str(error).replace(repr(path), shown(path))
        return Role(dataset, is_marker, told.replace("give a plain relative path", "rename it"))
    return Role(dataset, is_marker)
