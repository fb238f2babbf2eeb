"""Addresses of databases that are files, wherever these lie."""

import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from catalog import schema
from catalog.db import Catalog
from catalog.names import MAX_COMPONENT, beside
from catalog.places import sqlite_path, sqlite_url
from catalog.settings import Settings
from flows.server import server_database

ODD = ["home 2?x=1", "a#b%41%20c", "ü ?&mode=memory", "plain", "file:x?", "q?uri=true#f"]


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", ODD)
def test_a_catalog_lies_where_its_folder_is_whatever_that_is_called(
    tmp_path: Path, name: str
) -> None:
    home = tmp_path / name
    home.mkdir()
    settings = Settings(_env_file=None, home=home, catalog_url="")
    catalog = Catalog(settings.catalog_url)
    assert catalog.is_missing
    schema.upgrade(catalog)
    assert not catalog.is_missing
    assert catalog.file == home / "catalog.db"
    assert catalog.where == f"sqlite:///{home}/catalog.db"
    with catalog.read() as session:
        ((_, _, found),) = session.execute(sa.text("PRAGMA database_list")).all()
    assert Path(found) == home / "catalog.db"
    catalog.close()
    assert names_in(tmp_path) == {name}
    assert {"catalog.db", "catalog.lock"} <= names_in(home)


@pytest.mark.parametrize("name", ODD)
def test_the_servers_database_lies_there_too(tmp_path: Path, name: str) -> None:
    settings = Settings(_env_file=None, home=tmp_path / name, catalog_url="")
    (tmp_path / name / "prefect").mkdir(parents=True)
    url = sa.make_url(server_database(settings))
    assert sqlite_path(str(url.database)) == tmp_path / name / "prefect" / "prefect.db"
    engine = sa.create_engine(url.set(drivername="sqlite"))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (a)"))
    engine.dispose()
    assert names_in(tmp_path / name / "prefect") == {"prefect.db"}


def test_a_url_of_a_plain_path_is_the_usual_one() -> None:
    assert sqlite_url(Path("/a b/c.db")) == "sqlite:////a b/c.db"


def test_a_path_beside_another_has_a_name_that_can_be_one() -> None:
    assert beside("run/x.raw", "~1") == "run/x.raw~1"
    for name in ("x" * 255, "ü" * 127, "x" * 254, "x" * 253):
        made = beside(f"run/{name}", "~12")
        folder, _, last = made.rpartition("/")
        assert folder == "run" and last.endswith("~12")
        assert len(os.fsencode(last)) <= MAX_COMPONENT
    assert beside("x" * 255, "~1") != beside("x" * 254 + "y", "~1")


def test_people_see_an_address_without_its_password() -> None:
    assert Catalog("postgresql://spdf:secret@host:5432/spdf").where == (
        "postgresql://spdf:***@host:5432/spdf"
    )
