"""`spdf site` where there is no site yet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Spdf = Callable[..., Any]


def test_check_of_nothing_names_what_is_missing_and_makes_nothing(
    bare_home: Path, spdf: Spdf, ok: Spdf
) -> None:
    done = spdf("site", "check", "--json")
    assert done.code == 1
    parts = {one["part"]: one for one in done.json}
    assert set(parts) == {"database", "server"}
    assert not any(one["right"] for one in parts.values())
    assert all("`spdf up`" in one["mend"] for one in parts.values())
    assert not (bare_home / "catalog.db").exists()
    ok("storage", "add", "disk", bare_home / "disk", "--role", "input")
