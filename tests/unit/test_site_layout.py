"""A site's configuration: everything filled in, nothing by default, nothing readable by others."""

import re
import stat
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from catalog.errors import BadInput, Conflict
from catalog.settings import Settings
from flows.server import client_env
from flows.site.layout import lay_down, lay_down_local

PRIVATE = (".env", "server.env", "node.env", "spdf.env", "pgbouncer.ini", "pgbouncer-users.txt")


def values(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def settings_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("SPDF_CATALOG_URL", raising=False)
    return Settings(_env_file=directory / "spdf.env", home=directory)


def test_a_site_has_passwords_of_its_own(tmp_path: Path) -> None:
    lay_down(tmp_path / "a")
    lay_down(tmp_path / "b")
    first, second = (values(tmp_path / name / ".env") for name in "ab")
    secret = [name for name in first if name.endswith(("PASSWORD", "KEY"))]
    assert len(secret) == 4
    assert all(len(first[name]) >= 20 for name in secret)
    assert len({*(first[n] for n in secret), *(second[n] for n in secret)}) == 8


@pytest.mark.parametrize("name", PRIVATE)
def test_files_with_logins_are_their_owners_alone(tmp_path: Path, name: str) -> None:
    lay_down(tmp_path / "site")
    assert stat.S_IMODE((tmp_path / "site" / name).stat().st_mode) == 0o600


def test_the_pooler_gets_the_addresses_and_the_login_of_the_site(tmp_path: Path) -> None:
    lay_down(tmp_path / "site", host="10.1.2.3")
    made = ConfigParser(comment_prefixes=(";",), interpolation=None)
    made.read_string((tmp_path / "site" / "pgbouncer.ini").read_text())
    assert made["databases"]["spdf"] == (
        "host=10.1.2.3 port=5432 connect_query='SET random_page_cost = 1.1'"
    )
    assert (made["pgbouncer"]["listen_addr"], made["pgbouncer"]["listen_port"]) == (
        "10.1.2.3", "6432",
    )  # fmt: skip
    users = (tmp_path / "site" / made["pgbouncer"]["auth_file"]).read_text()
    password = values(tmp_path / "site" / ".env")["POSTGRES_PASSWORD"]
    assert users == f'"spdf" "{password}"\n'


def test_compose_gets_every_value_that_it_asks_for(tmp_path: Path) -> None:
    lay_down(tmp_path / "site")
    text = (tmp_path / "site" / "compose.yaml").read_text()
    given = values(tmp_path / "site" / ".env")
    asked = set(re.findall(r"\$\{(\w+)", text))
    assert asked == set(given)
    assert all(given.values())
    assert ":-" not in text


def test_compose_mounts_and_reads_only_what_was_laid_down(tmp_path: Path) -> None:
    lay_down(tmp_path / "site")
    made: dict[str, Any] = YAML(typ="safe").load(tmp_path / "site" / "compose.yaml")
    for service in made["services"].values():
        for name in service.get("env_file", ()):
            assert (tmp_path / "site" / name).is_file()
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            assert source in made["volumes"] or (tmp_path / "site" / source).is_file()


def test_every_server_has_a_health_check_and_listens_on_the_host_alone(tmp_path: Path) -> None:
    lay_down(tmp_path / "site")
    made: dict[str, Any] = YAML(typ="safe").load(tmp_path / "site" / "compose.yaml")
    for name in ("postgres", "minio", "redis", "server"):
        service = made["services"][name]
        assert "${SPDF_HOST}" in str(service["command"])
        assert "${SPDF_HOST}" in str(service["healthcheck"]["test"])
    assert values(tmp_path / "site" / ".env")["SPDF_HOST"] == "127.0.0.1"


def test_users_and_nodes_get_settings_that_reach_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_down(tmp_path / "site", host="10.1.2.3")
    found = settings_in(tmp_path / "site", monkeypatch)
    server = values(tmp_path / "site" / "server.env")
    env = client_env(found)
    assert env["PREFECT_API_URL"] == "http://10.1.2.3:4200/api" == server["PREFECT_UI_API_URL"]
    assert env["PREFECT_API_AUTH_STRING"] == server["PREFECT_SERVER_API_AUTH_STRING"]
    assert "@10.1.2.3:5432/spdf" in found.catalog_url
    assert found.s3_url == "http://10.1.2.3:9000"


def test_a_local_site_names_free_ports_on_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_down_local(tmp_path / "site")
    found = settings_in(tmp_path / "site", monkeypatch)
    assert found.local_servers
    assert "@127.0.0.1:" in found.catalog_url
    assert found.s3_url.startswith("http://127.0.0.1:")
    assert "asyncpg" in found.server_database_url.get_secret_value()


def test_settings_show_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_down_local(tmp_path / "site")
    given = values(tmp_path / "site" / "spdf.env")
    found = settings_in(tmp_path / "site", monkeypatch)
    shown = repr(found.model_dump(exclude={"catalog_url"}))
    assert given["SPDF_S3_SECRET_KEY"] not in shown
    assert given["SPDF_SERVER_DATABASE_URL"] not in shown


@pytest.mark.parametrize("lay", [lay_down, lay_down_local])
def test_what_is_there_is_never_overwritten(tmp_path: Path, lay: Any) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(Conflict, match="not empty"):
        lay(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("host", ["", "a b", "http://there", "here:80"])
def test_a_host_that_is_none_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(BadInput, match="--host"):
        lay_down(tmp_path / "site", host=host)
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("s3_streams", 0), ("outage_s", 0), ("s3_part_bytes", 1)]
)
def test_settings_that_mean_nothing_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Settings(_env_file=None, **{name: value})
