"""`spdf site`: the configuration of a whole site, its set-up, and whether all of it is right."""

from pathlib import Path
from typing import Annotated

import typer

from cli.home import settings
from cli.output import Json, note, plain, print_json, print_table, say

app = typer.Typer(name="site", help="A site's configuration.", no_args_is_help=True)

NOT_RIGHT = 1


@app.command()
def init(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to write it; must be new or empty.")
    ],
    host: Annotated[
        str, typer.Option(help="Address where the servers listen and nodes find them.")
    ] = "127.0.0.1",
    image: Annotated[str | None, typer.Option(help="Image of spdf that compose runs.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="All parts as processes of this machine: `spdf up`.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a site's configuration, with passwords of its own.

    With --local `SPDF_HOME=DIR spdf up` starts all of it here; else `docker compose up -d` in DIR
    starts the servers, and node.env is for the compute nodes.
    """
    from catalog.places import given_path
    from flows.site.layout import lay_down, lay_down_local

    made = lay_down_local(directory) if local else lay_down(directory, host=host, image=image)
    home = given_path(directory)
    if as_json:
        print_json({"directory": str(home), "files": [str(path) for path in made]})
        return
    for path in made:
        say(str(path))
    if local:
        note(f"SPDF_HOME={home} spdf up starts it; SPDF_HOME={home} spdf site check tries it out")
        return
    note(f"docker compose --project-directory {home} up -d starts it")
    note(f"copy {home / 'node.env'} to /etc/spdf/node.env of each compute node, mode 0600")


@app.command()
def setup(as_json: Json = False) -> None:
    """Bring the schema up to date and lay down storages, pools and deployments. Safe to repeat."""
    from flows.site.setup import set_up_data, set_up_server

    current = settings()
    new = set_up_data(current)
    set_up_server(current)
    if as_json:
        print_json({"storages_added": new})
        return
    say("storages added: " + ", ".join(new) if new else "all storages were there")
    say("pools, deployments and templates are laid down")


@app.command()
def check(as_json: Json = False) -> None:
    """Try out the database, the server, pools, workers and storages. Exit code 1 if one is wrong.

    A small file is written to every storage, read back and deleted.
    """
    from flows.site.check import check_site

    found = check_site(settings())
    if as_json:
        print_json(plain(found))
    else:
        print_table(
            [
                {
                    "part": one.part,
                    "name": one.name,
                    "right": "yes" if one.right else "NO",
                    "what": one.what,
                    "mend": one.mend,
                }
                for one in found
            ]
        )
    if not all(one.right for one in found):
        raise typer.Exit(NOT_RIGHT)
