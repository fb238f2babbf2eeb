"""A rule of the intake as a value: what it takes, and whether it can be used."""

import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from catalog import durations
from catalog.errors import BadInput, BadName
from catalog.names import check_name, check_path, is_hidden, is_path
from catalog.patterns import Pattern, named
from catalog.refs import Untaken

MOST_COUNT = 2**53
LEAST_LIFETIME_S = 60.0
"""Of a rule: its lifetime takes originals, and who meant another unit needs time to see it."""
LOST_AND_FOUND = "lost+found"
"""What the repair of a file system finds, and nobody else writes."""


@dataclass(frozen=True)
class Rule:
    """A rule as its row stood, or as it is to be.

    `pattern` and `end_pattern` are regular expressions of whole paths on the storage; `dataset` is
    a name with their groups in braces. None of the three ends: its datasets are closed by others.
    A marker and a count are both needed, unless `either` says that one is enough. With
    `close_empty` a marker of a run without files makes an empty, CLOSED dataset, and with
    `end_for_all` it ends the other sources of its dataset, too. What can't be taken holds its
    dataset open for `refused_after_s`, None: until it is settled. `with_storage` puts the storage
    before the names that files have in the dataset.
    A lifetime begins when its datasets are done with: `until` names templates that they wait for,
    besides those that take them by themselves; `unmatched` says what becomes of those that nothing
    took, None: nobody has decided. Above `shed_percent` of its storage's quota what is overdue
    goes.
    """

    name: str
    storage: str
    pattern: str
    dataset: str
    prefix: str = ""
    end_pattern: str | None = None
    close_count: int | None = None
    quiet_s: float | None = None
    stable_s: float = 1.0
    lifetime_s: float | None = None
    active: bool = True
    either: bool = False
    close_empty: bool = False
    end_for_all: bool = False
    refused_after_s: float | None = None
    with_storage: bool = False
    unmatched: Untaken | None = None
    until: tuple[str, ...] = ()
    shed_percent: int | None = None
    version: int = 1
    id: int = 0
    storage_id: int = 0

    @property
    def has_end(self) -> bool:
        """Whether it closes datasets."""
        return (self.end_pattern, self.close_count, self.quiet_s) != (None, None, None)

    def name_of(self, path: str) -> str:
        """The name that a file has in its dataset."""
        return f"{self.storage}/{path}" if self.with_storage else path

    def dataset_of(self, path: str) -> str | None:
        """The dataset of a file; None where the rule isn't for it. Raises `BadInput`."""
        return named(self.pattern, self.dataset, path)

    def ended_by(self, path: str) -> str | None:
        """The dataset that a marker ends; None for what is no marker. Raises `BadInput`."""
        if self.end_pattern is None:
            return None
        return named(self.end_pattern, self.dataset, path)

    def takes(self, path: str) -> str | None:
        """The dataset of a file that the watch takes for the rule; None for any other path.

        That is what lies below its prefix, isn't hidden, and is no marker of its own. A rule that
        can't be followed takes nothing.
        """
        if not path.startswith(self.prefix) or is_hidden(path):
            return None
        try:
            return None if self.ended_by(path) is not None else self.dataset_of(path)
        except BadInput:
            return None

    def may_be_marker(self, path: str) -> bool:
        """Whether a path is a marker of the rule, or could be, as its pattern can't be used."""
        try:
            return self.ended_by(path) is not None
        except BadInput:
            return True

    def may_lie_below(self, folder: str) -> bool:
        """Whether files of the rule could lie in a folder; True where that can't be told.

        Not at the top of a storage in what the repair of a file system makes. Raises `BadInput`.
        """
        if folder == LOST_AND_FOUND:
            return False
        # Of an odd name the pattern is asked for another than what stands there.
        return (
            not is_path(folder) or "\\" in folder or Pattern(self.pattern).may_begin(f"{folder}/")
        )

    @property
    def fault(self) -> str | None:
        """Why the rule can't be followed: it was made when other patterns were taken."""
        try:
            check_patterns(self)
        except BadInput as error:
            return str(error)
        return None


def check(rule: Rule) -> None:
    """Raise `BadInput` for a rule that can't be used."""
    check_name("intake rule", rule.name)
    if rule.prefix:
        check_path("prefix", rule.prefix.removesuffix("/"))
    if rule.close_count is not None and not 0 < rule.close_count <= MOST_COUNT:
        raise BadInput(f"--count {rule.close_count} is no number of files; give one from 1 on.")
    if rule.close_empty and rule.end_pattern is None:
        raise BadInput(
            "--empty-runs close needs --end: only a marker tells of a run without files."
        )
    if rule.close_empty and rule.close_count is not None and not rule.either:
        raise BadInput(
            "--empty-runs close can't go with --end and --count: where both are needed, a marker "
            "may come before its files; say --either, or leave one of them out."
        )
    if rule.either and (rule.end_pattern is None or rule.close_count is None):
        raise BadInput("--either needs both --end and --count: it says that one is enough.")
    if rule.end_for_all and rule.end_pattern is None:
        raise BadInput("--end-for-all needs --end: it is the marker that ends the others, too.")
    if rule.lifetime_s is not None and rule.lifetime_s < LEAST_LIFETIME_S:
        raise BadInput(
            f"--lifetime of {durations.words(rule.lifetime_s)} is too short, as it takes the "
            "originals, too; give at least 1m, or leave it out to keep them."
        )
    if rule.shed_percent is not None and not 0 < rule.shed_percent <= 100:
        raise BadInput(f"--shed-above {rule.shed_percent} is no percentage; give 1 to 100.")
    check_patterns(rule)
    for option, text in {"--pattern": rule.pattern, "--end": rule.end_pattern}.items():
        if text is not None and Pattern(text, option).takes_nothing:
            raise BadInput(
                f"{option} '{text}' fits no path, as it fits the empty text only; write what the "
                r"whole path is like, such as `(?P<run>run-\d+)/.*\.raw`."
            )


def check_decided(rule: Rule) -> None:
    """Raise `BadInput` where nobody has said what becomes of what its lifetime finds undone."""
    if rule.lifetime_s is not None and rule.unmatched is None:
        raise BadInput(
            "--lifetime needs --unmatched: `keep` keeps datasets that nothing took until something "
            "has, or an operator releases them; `expire` deletes them, originals and all."
        )
    if rule.lifetime_s is None:
        for option, value in (
            ("--unmatched", rule.unmatched),
            ("--until", rule.until),
            ("--shed-above", rule.shed_percent),
        ):
            if value:
                raise BadInput(f"{option} needs --lifetime: without one its datasets are kept.")


def check_patterns(rule: Rule) -> None:
    """Raise `BadInput` where its patterns and its dataset's name take nothing, or can't be used."""
    if is_hidden(rule.prefix):
        raise BadInput(
            f"--prefix {rule.prefix!r} is hidden, and nothing below a name that begins with a dot "
            "is ever taken; give another folder."
        )
    groups = Pattern(rule.pattern, "--pattern").groups
    wanted = _fields(rule.dataset)
    _check_fields("--pattern", wanted, groups)
    if rule.end_pattern is not None:
        _check_fields("--end", wanted, Pattern(rule.end_pattern, "--end").groups)
    sample = rule.dataset.format_map(dict.fromkeys(wanted, "x"))
    try:
        check_name("dataset", sample)
    except BadName as error:
        raise BadInput(
            f"--dataset {rule.dataset!r} makes names such as {sample!r}: {error}"
        ) from error


def _fields(template: str) -> list[str]:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise BadInput(f"--dataset {template!r}: {error}; write `run-{{run}}`.") from error
    found = []
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise BadInput(
                f"--dataset {template!r}: {{{name}}} is no group's name; write `run-{{run}}`."
            )
        found.append(name)
    return found


def _check_fields(option: str, wanted: Sequence[str], groups: Collection[str]) -> None:
    for name in wanted:
        if name not in groups:
            raise BadInput(
                f"--dataset names the group {name!r}, which {option} doesn't have; write "
                f"(?P<{name}>…) there."
            )
