"""What a rule of the intake does, in words."""

from collections.abc import Sequence

from catalog import durations
from catalog.counts import count_of
from catalog.refs import StorageRole, Untaken
from catalog.rule import Rule


def ends(rule: Rule) -> str:
    """What closes its datasets; "" where nothing does."""
    marker = f"marker {rule.end_pattern}" if rule.end_pattern is not None else ""
    count = count_of(rule.close_count, "file") if rule.close_count is not None else ""
    found = [f" {'or' if rule.either else 'and'} ".join(filter(None, (marker, count)))]
    if rule.quiet_s is not None:
        found.append(f"{durations.words(rule.quiet_s)} without files")
    return " or ".join(filter(None, found))


def sentences(rule: Rule, role: StorageRole = StorageRole.INPUT) -> list[str]:
    """What it takes, what it leaves, and when a dataset is closed and deleted.

    `role` is its storage's.
    """
    where = f"storage {rule.storage}" + (f", below {rule.prefix}" if rule.prefix else "")
    taken = "as soon as it is listed"
    if rule.stable_s > 0:
        taken = f"once it hasn't changed for {durations.words(rule.stable_s)}"
        if rule.stable_s < 1:
            taken = f"once it hasn't changed for {rule.stable_s:g} s"
    found = [
        f"on {where} it takes each file whose whole path is like {rule.pattern}, {taken}, for the "
        f"dataset {rule.dataset}",
        "it leaves markers, symbolic links, and what has a part that begins with a dot",
    ]
    if role is not StorageRole.INPUT:
        found.append(
            f"{rule.storage} has the role {role}: jobs write there, too; what has the form of "
            "their outputs is left"
        )
    how = ends(rule)
    if rule.with_storage:
        found.append(f"names in the dataset begin with {rule.storage}/")
    if how:
        patience = "no file of it waits or was refused"
        if rule.refused_after_s is not None:
            patience = (
                "no file of it waits; what was refused is waited for "
                f"{durations.words(rule.refused_after_s)}, and then left out"
            )
        found.append(
            f"it has ended with a dataset at {how}; that is closed once all who fill it have "
            f"ended, and {patience}"
        )
        if rule.end_for_all:
            found.append("its marker ends the others who fill the dataset, too")
    else:
        found.append(
            "nothing closes its datasets but `spdf dataset close`: see --end, --count, --quiet"
        )
    if rule.end_pattern is not None:
        empty = (
            "makes an empty, CLOSED dataset" if rule.close_empty else "makes none, and is told of"
        )
        found.append(f"a marker of a run without files {empty}")
    if rule.lifetime_s is not None:
        found += _lifetime(rule, durations.words(rule.lifetime_s))
    return found


def _lifetime(rule: Rule, later: str) -> list[str]:
    """When its datasets go by themselves, and what keeps them."""
    done = "the workflow that began by itself over it"
    if rule.until:
        done += f", and one of each of {', '.join(rule.until)}"
    found = [
        f"a dataset is deleted, bytes and all, {later} after it is done with: {done}, is FINISHED, "
        "and uploads that were asked for are DONE; what FAILED keeps it"
    ]
    if rule.unmatched is None:
        found.append(
            "nobody has said what becomes of datasets that nothing took, so none of its goes by "
            f"itself: `spdf intake update {rule.name} --unmatched keep`, or `expire`"
        )
    elif rule.unmatched is Untaken.KEEP:
        found.append(
            "one that no template took, and nobody processed, stays until `spdf dataset release`"
        )
    else:
        found.append(f"one that no template took is deleted {later} after its close")
    if rule.shed_percent is not None:
        found.append(
            f"above {rule.shed_percent} % of the quota of {rule.storage} what is overdue is "
            "deleted though it isn't done with, the oldest first"
        )
    return found


def awaits(rule: Rule, dataset: str, files: int) -> str:
    """What would end a dataset that has so many files of the rule."""
    found = []
    if rule.end_pattern is not None:
        found.append(f"the marker {rule.end_pattern} of {dataset} on {rule.storage}")
    if rule.close_count is not None:
        found.append(f"{count_of(rule.close_count, 'file')} (it has {files})")
    told = f" {'or' if rule.either else 'and'} ".join(found)
    if rule.quiet_s is not None:
        quiet = f"{durations.words(rule.quiet_s)} without files"
        told = f"{told}, or {quiet}" if told else quiet
    return told or "a person's word"


def collisions(rule: Rule, others: Sequence[Rule]) -> list[str]:
    """What is to be known of other rules that fill the same datasets."""
    found = []
    for other in others:
        apart = other.storage != rule.storage
        told = f"intake rule {other.name} fills the same datasets"
        told += f" from {other.storage}" if apart else ""
        told += ": each is closed once both have ended" if rule.has_end and other.has_end else ""
        found.append(told)
        if apart and not (rule.with_storage or other.with_storage):
            found.append(
                f"a file of {rule.storage} and one of {other.storage} of the same path would have "
                "one name there, and the second be refused; `spdf intake update "
                f"{rule.name} --names storage` puts the storage before it"
            )
    return found
