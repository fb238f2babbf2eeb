"""`spdf catalog accept` and `spdf storage claim`: what is told, and what a person says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from catalog import datasets, deletion, lifecycle, requests, restores, storages
from catalog.backup import back_up, restore
from catalog.db import Catalog
from catalog.models import CatalogInfo, Storage
from catalog.names import MARKER
from catalog.requests import parse
from catalog.states import DatasetState
from tests.processing import do_all

Spdf = Callable[..., Any]


def close(catalog: Catalog, name: str, **more: Any) -> int:
    with catalog.write() as session:
        made = datasets.create(session, name, **more)
        datasets.close(session, made)
    return made


def restored(catalog: Catalog, tmp_path: Path) -> str | None:
    """A catalog of before its datasets were deleted and pinned, and requests answered."""
    close(catalog, "due", lifetime_s=0.0)
    gone, kept = close(catalog, "gone"), close(catalog, "kept")
    made = back_up(catalog, tmp_path / "backup")
    with catalog.write() as session:
        deletion.mark(session, gone, "a person", by_person=True)
        lifecycle.pin(session, kept, "for the paper")
        asked = [
            parse({"kind": "dataset.input", "key": key, "name": key}) for key in ("one", "two")
        ]
        requests.submit(session, asked)
    do_all(catalog)
    return restore(catalog, made.path, replace=True).aside


def test_a_catalog_that_was_never_restored_has_nothing_to_accept(
    ok: Spdf, home: Path, catalog: Catalog
) -> None:
    assert "removes as ever" in ok("catalog", "accept", "--yes").out
    assert ok("catalog", "accept", "--json").json == {"accepted": True, "found": None}


def test_accept_tells_what_is_due_what_was_done_since_and_then_lets_it(
    ok: Spdf, home: Path, catalog: Catalog, tmp_path: Path
) -> None:
    restored(catalog, tmp_path)
    found = ok("catalog", "accept", "--json").json["found"]
    assert {item["name"]: item["why"] for item in found["due"]} == {"due": "its lifetime is over"}
    assert [item["name"] for item in found["deleted"]] == ["gone"]
    assert found["pinned"] == [{"name": "kept", "why": "for the paper"}]
    assert {item["name"] for item in found["requests"]} == {"one", "two"}
    assert any("has not been looked at since: `spdf inspect run" in r for r in found["remarks"])
    assert found["generation"] == 1
    with catalog.write() as session:
        assert deletion.expire(session) == []
    told = ok("catalog", "accept")
    assert "`spdf catalog accept --yes`" in told.out and "for the paper" in told.out
    assert ok("catalog", "accept", "--yes").out.splitlines()[-1].startswith("accepted: ")
    with catalog.write() as session:
        assert deletion.expire(session) == ["due"]
    assert "removes as ever" in ok("catalog", "accept").out


def test_without_the_catalog_of_before_it_is_told_what_is_not_known(
    ok: Spdf, home: Path, catalog: Catalog, tmp_path: Path
) -> None:
    with catalog.write() as session:
        requests.submit(session, [parse({"kind": "dataset.input", "key": "k", "name": "k"})])
    aside = restored(catalog, tmp_path)
    assert aside is not None
    if catalog.is_sqlite:
        Path(aside).unlink()
    else:
        with catalog.write() as session:
            session.execute(sa.text(f'DROP SCHEMA "{aside}" CASCADE'))
    found = ok("catalog", "accept", "--json").json["found"]
    assert found["deleted"] == found["pinned"] == found["requests"] == []
    told = " ".join(found["remarks"])
    assert f"the catalog of before, {aside}, can't be read" in told
    assert "have all sent again that came after the last one" in told


def test_a_rollback_that_was_found_is_accepted_as_well(
    ok: Spdf, home: Path, catalog: Catalog
) -> None:
    with catalog.write() as session:
        restores.note_rollback(session)
    found = ok("catalog", "accept", "--yes", "--json").json["found"]
    assert found["how"] == "rolled back" and "no catalog of before" in " ".join(found["remarks"])


def test_a_deletion_of_before_is_told_as_due(
    ok: Spdf, home: Path, catalog: Catalog, tmp_path: Path
) -> None:
    made = close(catalog, "going")
    with catalog.write() as session:
        deletion.mark(session, made, "a person", grace_s=1e6, by_person=True)
    kept = back_up(catalog, tmp_path / "backup")
    restore(catalog, kept.path, replace=True)
    found = ok("catalog", "accept", "--json").json["found"]
    assert [item["name"] for item in found["due"]] == ["going"]
    with catalog.read() as session:
        assert datasets.get(session, made).state is DatasetState.DELETING


def claims_of(catalog: Catalog, name: str) -> list[dict[str, Any]]:
    with catalog.read() as session:
        info = storages.by_name(session, name)
    found: list[dict[str, Any]] = json.loads(Path(info.url, MARKER).read_text())["claims"]
    return found


def test_a_storage_is_claimed_by_this_copy(ok: Spdf, home: Path, catalog: Catalog) -> None:
    before = claims_of(catalog, "output")
    with catalog.write() as session:
        session.execute(sa.update(CatalogInfo).values(instance="restored"))
    assert "`spdf storage claim output`" in ok("storage", "list").err
    done = ok("storage", "claim", "output", "internal")
    assert done.err == ""
    (after,) = claims_of(catalog, "output")
    assert (after["instance"], after["may"]) == ("restored", before[0]["may"])


def test_another_catalogs_storage_is_told_of_and_taken_by_its_id_only(
    spdf: Spdf, ok: Spdf, home: Path, catalog: Catalog, tmp_path: Path
) -> None:
    place = tmp_path / "theirs"
    place.mkdir()
    theirs = {"catalog": "c0ffee", "instance": "i", "may": "removes", "beat": 3}
    whole = {"format": 1, "storage": "a1b2", "claims": [theirs]}
    (place / MARKER).write_text(json.dumps(whole))
    added = ok("storage", "add", "shared", str(place), "--role", "output")
    assert "catalog c0ffee may, and only one may" in added.err
    refused = spdf("storage", "claim", "shared", "--may", "removes")
    assert refused.code == 4 and "catalog c0ffee may remove there" in refused.err
    ok("storage", "claim", "shared", "--from", "c0ffee", "--may", "removes")
    assert {c["catalog"] == "c0ffee": c["may"] for c in claims_of(catalog, "shared")} == {
        True: "reads", False: "removes",
    }  # fmt: skip
    ok("storage", "claim", "shared", "--may", "reads")
    assert {c["may"] for c in claims_of(catalog, "shared")} == {"reads"}


def test_a_storage_without_a_marker_cannot_be_claimed(
    spdf: Spdf, home: Path, catalog: Catalog
) -> None:
    with catalog.write() as session:
        where = storages.by_name(session, "output").url
        session.execute(sa.update(Storage).values(marked_at=None, identity=None))
    Path(where, MARKER).unlink()
    done = spdf("storage", "claim", "output")
    assert done.code in (4, 5) and "`spdf storage mark output`" in done.err
