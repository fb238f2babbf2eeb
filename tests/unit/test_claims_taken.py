"""Claims that are made, renewed and taken: by several catalogs, by inspections, by a person."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from catalog import claims, leave, problems, restores, rollbacks, schema, standing, storages
from catalog.db import Catalog
from catalog.drivers import driver_for, marker
from catalog.drivers.local import LocalDriver
from catalog.drivers.marker import Claim, Marker, May
from catalog.errors import Conflict, StorageError
from catalog.inspection.scan import Options, inspect
from catalog.models import CatalogInfo
from catalog.names import MARKER
from catalog.refs import StorageInfo
from tests.privileges import modes_hold

LOOK = Options(sample_percent=0.0, grace_s=0.0)


@pytest.fixture
def other(bare_url: str) -> Iterator[Catalog]:
    """Another catalog, on a database of its own."""
    opened = Catalog(bare_url)
    schema.upgrade(opened)
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory that both use."""
    return tmp_path / "shared"


def use(catalog: Catalog, folder: Path, role: str = "output") -> StorageInfo:
    """The directory is a storage of a catalog."""
    with catalog.write() as session:
        made = storages.add(session, "shared", "local", role, str(folder))
    return standing.mark(catalog, made.id).storage


def id_of(catalog: Catalog) -> str:
    with catalog.read() as session:
        return claims.ours(session).catalog


def found(folder: Path) -> dict[str, dict[str, Any]]:
    """The claims in the marker, by catalog."""
    listed = json.loads(Path(folder, MARKER).read_text())["claims"]
    by_catalog = {claim["catalog"]: claim for claim in listed}
    assert len(by_catalog) == len(listed), "one for each"
    return by_catalog


def refusal(catalog: Catalog, info: StorageInfo) -> str:
    """Why nothing may be removed; nothing where it may."""
    try:
        claims.require(catalog, info.id, driver_for(info))
    except StorageError as error:
        return str(error)
    return ""


def told(catalog: Catalog) -> list[str]:
    with catalog.read() as session:
        return [p.message for p in problems.problems(session) if p.source == "storages"]


def test_the_second_catalog_only_reads_and_is_told(
    catalog: Catalog, other: Catalog, folder: Path
) -> None:
    use(catalog, folder)
    second = use(other, folder)
    assert {name: claim["may"] for name, claim in found(folder).items()} == {
        id_of(catalog): "removes", id_of(other): "reads",
    }  # fmt: skip
    assert told(catalog) == []
    (why,) = told(other)
    assert f"by its marker {MARKER} catalog {id_of(catalog)} may" in why
    assert f"`spdf storage claim shared --from {id_of(catalog)}`" in why
    driver_for(second).put(Path(__file__), "still/written")


def test_many_may_read_an_input_storage(catalog: Catalog, other: Catalog, folder: Path) -> None:
    infos = [(one, use(one, folder, "input")) for one in (catalog, other)]
    assert {claim["may"] for claim in found(folder).values()} == {"reads"}
    for one, info in infos:
        assert told(one) == [] and "this catalog only reads" in refusal(one, info)


class Waits(LocalDriver):
    """Stops where the marker was read for the first time, until the other has read it, too."""

    def __init__(self, info: StorageInfo, barrier: threading.Barrier) -> None:
        super().__init__(info.name, Path(info.url))
        self._barrier: threading.Barrier | None = barrier

    def read_marker(self, folder: str = "") -> bytes | None:
        text = super().read_marker(folder)
        if (barrier := self._barrier) is not None:
            self._barrier = None
            barrier.wait(20)
        return text


def obvious(catalog: Catalog, driver: Waits, info: StorageInfo) -> None:
    """Read what is there, and write what shall be."""
    with catalog.read() as session:
        mine = claims.ours(session)
    text = driver.read_marker()
    assert text is not None
    new = marker.read(text).with_claim(claims.first(mine, info))
    Path(info.url, MARKER).write_bytes(new.to_bytes())


@pytest.mark.parametrize("is_ours", [False, True])
def test_two_catalogs_claim_a_storage_at_once(
    catalog: Catalog, other: Catalog, folder: Path, is_ours: bool
) -> None:
    """With the obvious statement one claim is lost, and both take the storage for theirs."""
    folder.mkdir()
    Path(folder, MARKER).write_bytes(Marker(marker.new_id()).to_bytes())
    infos = []
    for one in (catalog, other):
        with one.write() as session:
            infos.append(storages.add(session, "shared", "local", "output", str(folder)))
    barrier = threading.Barrier(2)
    threads = [
        threading.Thread(
            target=claims.join if is_ours else obvious, args=(one, Waits(info, barrier), info)
        )
        for one, info in zip((catalog, other), infos, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    known = found(folder)
    if is_ours:
        assert sorted(claim["may"] for claim in known.values()) == ["reads", "removes"]
        assert known.keys() == {id_of(catalog), id_of(other)}
    else:
        assert [claim["may"] for claim in known.values()] == ["removes"]


def test_two_persons_who_take_a_storage_at_once_do_not_both_get_it(
    catalog: Catalog, other: Catalog, folder: Path
) -> None:
    folder.mkdir()
    Path(folder, MARKER).write_bytes(Marker(marker.new_id()).to_bytes())
    barrier = threading.Barrier(2)
    refused: list[str] = []

    def take(one: Catalog, info: StorageInfo) -> None:
        try:
            claims.take(one, info.id, Waits(info, barrier))
        except Conflict as error:
            refused.append(str(error))

    threads = []
    for one in (catalog, other):
        with one.write() as session:
            info = storages.add(session, "shared", "local", "output", str(folder))
        threads.append(threading.Thread(target=take, args=(one, info)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [claim["may"] for claim in found(folder).values()] == ["removes"]
    assert len(refused) == 1 and "only one may" in refused[0]


def test_an_inspection_renews_the_claim(catalog: Catalog, folder: Path) -> None:
    info = use(catalog, folder)
    for beat in (1, 2, 3):
        inspect(catalog, info.id, LOOK)
        assert found(folder)[id_of(catalog)]["beat"] == beat
    assert refusal(catalog, info) == ""


def test_an_inspection_leaves_the_claims_of_others_alone(
    catalog: Catalog, other: Catalog, folder: Path
) -> None:
    info = use(catalog, folder)
    use(other, folder)
    before = found(folder)[id_of(other)]
    inspect(catalog, info.id, LOOK)
    assert found(folder)[id_of(other)] == before
    assert found(folder)[id_of(catalog)]["beat"] == 1


@pytest.mark.parametrize("seen_by", ["look", "removal", "inspection", "claim"])
def test_a_catalog_behind_its_own_claim_was_rolled_back(
    catalog: Catalog, folder: Path, seen_by: str
) -> None:
    """As of the disk of a machine: nobody said `spdf catalog restore`."""
    info = use(catalog, folder)
    for _ in range(2):
        inspect(catalog, info.id, LOOK)
    with catalog.write() as session:
        session.execute(sa.update(CatalogInfo).values(beat=1))
        assert leave.why_not(session) is None
    if seen_by == "look":
        rollbacks.look(catalog)
    elif seen_by == "removal":
        assert "this catalog has been further than it is now" in refusal(catalog, info)
    elif seen_by == "inspection":
        inspect(catalog, info.id, LOOK)
    else:
        claims.take(catalog, info.id, driver_for(info))
    with catalog.read() as session:
        assert "was rolled back" in (leave.why_not(session) or "")
        assert restores.generation(session) == 1
    if seen_by == "claim":
        assert refusal(catalog, info) == "", "nothing goes by itself, though"
        return
    assert found(folder)[id_of(catalog)]["beat"] == 2, "its claim is left as it was"
    assert "another copy of this catalog has a claim" in refusal(catalog, info)
    rollbacks.look(catalog)
    with catalog.read() as session:
        assert restores.generation(session) == 1, "it is found once"


def test_a_person_claims_a_storage_after_a_restore(catalog: Catalog, folder: Path) -> None:
    info = use(catalog, folder)
    inspect(catalog, info.id, LOOK)
    with catalog.write() as session:
        session.execute(sa.update(CatalogInfo).values(instance="restored", beat=0))
    before = Path(folder, MARKER).read_text()
    standing.adopt_all(catalog)
    standing.mark(catalog, info.id)
    inspect(catalog, info.id, LOOK)
    assert Path(folder, MARKER).read_text() == before, "a restore touches no marker"
    assert "`spdf storage claim shared` gives it to this one" in refusal(catalog, info)
    assert claims.take(catalog, info.id, driver_for(info)) == ""
    assert refusal(catalog, info) == ""
    claim = found(folder)[id_of(catalog)]
    assert (claim["instance"], claim["may"]) == ("restored", "removes") and claim["beat"] > 1


def test_a_person_takes_a_storage_from_another_catalog_by_its_name_only(
    catalog: Catalog, other: Catalog, folder: Path
) -> None:
    first, second = use(catalog, folder), use(other, folder)
    for over in (None, "another"):
        with pytest.raises(Conflict, match=f"catalog {id_of(catalog)} may remove there"):
            claims.take(other, second.id, driver_for(second), may=May.REMOVES, over=over)
    claims.take(other, second.id, driver_for(second))
    assert found(folder)[id_of(other)]["may"] == "reads", "as before"
    claims.take(other, second.id, driver_for(second), over=id_of(catalog))
    assert refusal(other, second) == ""
    assert f"catalog {id_of(other)} may, and only one may" in refusal(catalog, first)
    claims.take(other, second.id, driver_for(second), may=May.READS)
    claims.take(catalog, first.id, driver_for(first), may=May.REMOVES)
    assert refusal(catalog, first) == ""


def test_what_we_may_not_write_is_given_to_be_placed(catalog: Catalog, folder: Path) -> None:
    info = use(catalog, folder)
    folder.chmod(0o555)
    with catalog.write() as session:
        session.execute(sa.update(CatalogInfo).values(instance="restored"))
    try:
        with modes_hold():
            text = claims.take(catalog, info.id, driver_for(info))
    finally:
        folder.chmod(0o755)
    (claim,) = marker.read(text.encode()).claims
    assert marker.whose(claim) == (id_of(catalog), "restored")


def test_a_claim_without_a_beat_is_the_oldest() -> None:
    odd = Claim("c", "i", May.READS, 7)
    for beat in (None, "9", True, 2.5):
        assert marker.beat_of({**marker.as_written(odd), "beat": beat}) == 0
    assert marker.beat_of(marker.as_written(odd)) == 7
