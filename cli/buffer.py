"""`spdf buffer`: how full the storages are."""

from typing import Annotated

import typer

from catalog.errors import BadInput
from cli.home import open_catalog
from cli.output import Json, note, print_json, say, show_list, size
from cli.parameters import MOST

_MOST_DIGITS = 19

app = typer.Typer(name="buffer", help="How full storages are.", no_args_is_help=True)


@app.command()
def status(as_json: Json = False) -> None:
    """Show how full each storage is, how fast it fills, and when it will be full."""
    from catalog import durations
    from catalog.filling import fills

    found = fills(open_catalog())
    if as_json:
        print_json([{**vars(fill), "full_in_s": fill.full_in_s} for fill in found])
        return
    show_list(
        found,
        False,
        lambda fill: {
            "storage": fill.storage,
            "role": fill.role,
            "files": fill.files,
            "size": size(fill.size_bytes),
            "of": size(fill.capacity_bytes),
            "quota": fill.has_quota,
            "overdue": size(fill.overdue_bytes) if fill.overdue_bytes else None,
            "grows per s": size(round(fill.growth_bytes_per_s or 0)),
            "full in": durations.words(fill.full_in_s) if fill.full_in_s is not None else None,
        },
        empty="no storages; `spdf storage add` adds one.",
    )
    for fill in found:
        if fill.warning is not None:
            note(fill.warning)


@app.command()
def quota(
    storage: Annotated[str, typer.Argument(metavar="STORAGE", help="Name of the storage.")],
    limit: Annotated[
        str, typer.Argument(metavar="BYTES", help="Such as 500GB or 20TB; `none` for no quota.")
    ],
    high: Annotated[
        int, typer.Option(min=1, max=100, help="Percent from which producing stages pause.")
    ] = 90,
    low: Annotated[int, typer.Option(min=0, max=100, help="Percent below which they go on.")] = 80,
    as_json: Json = False,
) -> None:
    """Set how much a storage may hold."""
    from catalog import storages, usage

    quota_bytes = None if limit == "none" else _bytes(limit)
    if low >= high:
        raise BadInput(f"--low {low} must be below --high {high}.")
    catalog = open_catalog()
    with catalog.write() as session:
        info = storages.by_name(session, storage)
        usage.set_quota(session, info.id, quota_bytes, high, low)
    if as_json:
        print_json({"storage": storage, "quota_bytes": quota_bytes, "high": high, "low": low})
    else:
        most = "what there is room for" if quota_bytes is None else size(quota_bytes)
        say(f"storage {storage} may hold {most}")


def _bytes(text: str) -> int:
    """Bytes of `500GB` or a plain number."""
    units = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}
    number = text.rstrip("BKMGTPbkmgtp")
    unit = text[len(number) :].upper() or "B"
    if not (number.isascii() and number.isdecimal()) or unit not in units:
        raise BadInput(f"{text!r} is no size; write bytes, or 500GB, 20TB.")
    if len(number) > _MOST_DIGITS or int(number) * units[unit] > MOST:
        raise BadInput(f"{text[:40]!r} is more than any storage holds; give at most {MOST} bytes.")
    return int(number) * units[unit]
