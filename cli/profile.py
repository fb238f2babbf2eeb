"""`spdf up`, `down` and `status`: the embedded profile."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from catalog.errors import Unavailable
from cli.home import open_catalog, settings, sqlite_file
from cli.output import Json, console, note, plain, print_fields, print_json, print_table, say

if TYPE_CHECKING:
    from catalog.db import Catalog
    from flows.services import Status, UpInfo

DOWN, STARTING, UNHEALTHY = 3, 5, 1
"""Exit codes of `status` where the profile isn't up, not yet, or up and not well."""
_EXIT_CODES = {"down": DOWN, "starting": STARTING, "unhealthy": UNHEALTHY}
_SENTENCES = {
    "down": "spdf is down; `spdf up` starts it.",
    "starting": "spdf is starting.",
    "unhealthy": "spdf is up, but not well.",
    "healthy": "spdf is up.",
}


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)


def up(as_json: Json = False) -> None:
    """Start the server, its web page, the workers and the recorder on this machine.

    All state lives in SPDF_HOME (~/.spdf). A second `up` only says that it is up.
    """
    info = start()
    if as_json:
        print_json(info)
        return
    say("spdf is up already." if info.already else "spdf is up.")
    print_fields(where(info))


def start() -> "UpInfo":
    """Bring the embedded profile up, with its default storages; raises as `services.up` does."""
    from catalog.db import get_catalog
    from flows import services
    from flows.defaults import add_default_storages

    current = settings()
    sqlite_file(current.catalog_url)
    with _waiting("starting") as tell:
        info = services.up(current, progress=tell)
    add_default_storages(get_catalog(), current)
    return info


def where(info: "UpInfo") -> dict[str, Any]:
    """Where to look, and the login that is asked for there."""
    return {"web page": info.ui_url, "login": f"{info.user}:{info.password}"}


@contextmanager
def _waiting(what: str) -> Iterator[Callable[[str], None]]:
    """A spinner on a terminal that names what is waited for; else a line for each such thing."""
    terminal = console(err=True)
    if terminal.is_terminal:
        with terminal.status(what) as spinner:
            yield lambda name: spinner.update(f"waiting for {name}")
        return
    seen: set[str] = set()

    def tell(name: str) -> None:
        if name not in seen:
            seen.add(name)
            note(f"waiting for {name}")

    yield tell


def down(as_json: Json = False) -> None:
    """Stop what `up` started, and nothing else. Jobs in progress are handed back."""
    from flows import services

    with _waiting("stopping"):
        stopped = services.down(settings())
    if as_json:
        print_json({"stopped": stopped})
    elif stopped:
        say("spdf is down. Stopped: " + ", ".join(stopped))
    else:
        say("spdf was not up.")


def status(as_json: Json = False) -> None:
    """Show what is up, what isn't well, and how much is going on.

    Exit code 3 where the profile is down, 5 where it is starting, 1 where a service is unhealthy:
    it runs, and gets nowhere.
    """
    from flows import services

    found = services.status(settings())
    going_on = _overview()
    if as_json:
        told = [*found.problems, *(problem["message"] for problem in going_on.get("troubles", ()))]
        print_json({**plain(found), **going_on, "problems": told})
    else:
        _show(found, going_on)
    if found.state in _EXIT_CODES:
        raise typer.Exit(_EXIT_CODES[found.state])


def _overview() -> dict[str, Any]:
    """What goes on in the catalog; empty where there is none yet."""
    from sqlalchemy.exc import DBAPIError

    from catalog import fulldisk

    try:
        catalog = open_catalog()
        return _counts(catalog)
    except Unavailable as error:
        note(str(error))
    except DBAPIError as error:
        # Of the full disk `services.status` tells; SQLite can't even read on one at times.
        if fulldisk.told(error) is None:
            raise
    return {}


def _counts(catalog: "Catalog") -> dict[str, Any]:
    from catalog import storages
    from catalog.filling import fills
    from catalog.overview import overview
    from catalog.problems import problems
    from catalog.requests import queue
    from catalog.states import RequestState

    # Of those that are away `problems` tells.
    forecasts = [fill.warning for fill in fills(catalog) if fill.warning and not fill.away]
    with catalog.read() as session:
        return {
            **plain(overview(session)),
            "storages": plain(storages.list_all(session)),
            "requests": queue.count(session, RequestState.QUEUED),
            "forecasts": forecasts,
            "troubles": plain(problems(session)),
        }


def _show(found: "Status", going_on: dict[str, Any]) -> None:
    say(_SENTENCES[found.state])
    if found.ui_url:
        print_fields({"web page": found.ui_url, "login": f"in {settings().home / 'login'}"})
    if found.services:
        print_table(
            [
                {
                    "service": service.name,
                    "pid": service.pid,
                    "state": service.state,
                    "restarts": service.restarts,
                }
                for service in found.services
            ]
        )
    for problem in found.problems:
        note(problem)
    if going_on:
        print_fields(
            {
                "catalog": open_catalog().where,
                "live pilots": going_on["live_pilots"],
                "workflows": _counted(going_on["workflows"]),
                "jobs": _counted(going_on["jobs"]),
                "storages": ", ".join(storage["name"] for storage in going_on["storages"]),
                "requests": f"{going_on['requests']} queued",
            }
        )
        for line in going_on["forecasts"]:
            say(line)
        for problem in going_on["troubles"]:
            note(problem["message"])


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items()) or "none at work"
