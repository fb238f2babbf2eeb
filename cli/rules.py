"""What `spdf intake add` and `update` do with a rule, and say of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from catalog.counts import count_of
from catalog.errors import BadInput
from cli.home import open_catalog, settings
from cli.output import Size, note, plain, print_json, print_table, say

if TYPE_CHECKING:
    from catalog.intakerules import Rule

_SHOWN = 5


def first(names: Sequence[str]) -> str:
    """The first few of names."""
    return ", ".join(names[:_SHOWN]) + (" and more" if len(names) > _SHOWN else "")


def follow(
    rule: "Rule", adopt: int | None, *, is_named: bool, dry_run: bool, as_json: bool
) -> None:
    """Add a rule, and have it go on for what another one of its name has left."""
    from dataclasses import replace

    from catalog import intakerules, sources
    from catalog.rule import check_decided

    catalog = open_catalog()
    if not is_named:
        with catalog.read() as session:
            standing = intakerules.find(session, rule.name)
            others = intakerules.alike(session, rule)
        # Two storages may have files of one path.
        is_apart = any(other.storage != rule.storage for other in others)
        rule = replace(rule, with_storage=is_apart if standing is None else standing.with_storage)
    if dry_run:
        check_decided(rule)
        preview(rule, as_json=as_json)
        return
    with catalog.write() as session:
        found = intakerules.add(session, rule)
        left = sources.orphans(session, found)
        if adopt is not None:
            left = sources.of_removed(session, adopt)
            if not left:
                raise BadInput(
                    f"--adopt {adopt} is no removed rule that left an OPEN dataset; `spdf dataset "
                    "why` of the dataset names it."
                )
        adopted = sources.adopt(session, found, left)
    tell(found, as_json=as_json, adopted=adopted)


def tell(rule: "Rule", *, as_json: bool, adopted: Sequence[str] = ()) -> None:
    """Say what a rule does, and what is to be known of it."""
    from catalog import intakerules, rulewords, storages

    if as_json:
        print_json({**plain(rule), "adopted": list(adopted)})
        return
    with open_catalog().read() as session:
        role = storages.by_name(session, rule.storage).role
        others = intakerules.alike(session, rule)
    say(f"intake rule {rule.name}:")
    for sentence in [*rulewords.sentences(rule, role), *rulewords.collisions(rule, others)]:
        say(f"- {sentence}")
    if adopted:
        say(f"- it goes on for {count_of(len(adopted), 'OPEN dataset')}: {first(adopted)}")


def preview(rule: "Rule", *, as_json: bool) -> None:
    """Say what a rule would do, and what of that lies there now."""
    from catalog import intakerules, rulewords, storages
    from catalog.rule import check
    from flows.intake.previewing import previewed

    catalog = open_catalog()
    with catalog.read() as session:
        check(rule)
        intakerules.check_templates(session, rule)
        storage = storages.by_name(session, rule.storage)
        others = intakerules.alike(session, rule)
    found = previewed(catalog, rule, storage, settings().look_s)
    if as_json:
        print_json({"rule": rule, "would take": found})
        return
    say(f"intake rule {rule.name} would do this; nothing is changed:")
    for sentence in [
        *rulewords.sentences(rule, storage.role),
        *rulewords.collisions(rule, others),
    ]:
        say(f"- {sentence}")
    if found.datasets:
        print_table(
            [
                {
                    "dataset": one.name,
                    "files": one.files,
                    "bytes": Size(one.size_bytes),
                    "now": one.state,
                }
                for one in found.datasets
            ]
        )
    else:
        say(f"nothing on {rule.storage} is new to it now")
    if found.more:
        note(f"and {count_of(found.more, 'more dataset')} by name")
    for count, told in (
        (found.registered, "in their datasets already"),
        (found.left, "of deleted datasets, which stay out until `spdf intake rescan`"),
        (found.late, "too late for datasets that take no files any more"),
    ):
        if count:
            note(f"{count_of(count, 'file')} {told}")
    if found.refused:
        note(f"{count_of(found.refused, 'thing')} there would not be taken")
