"""One way by which bytes go: nothing else calls a driver's removal."""

import ast
from collections.abc import Iterator
from pathlib import Path

import catalog

ROOT = Path(catalog.__file__).parent.parent
ALLOWED = {"catalog/erasure.py", "catalog/drivers/__init__.py"}


def removals(path: Path) -> Iterator[str]:
    """Calls of `delete` and `delete_many` that are no statement of SQL."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            if node.func.attr in ("delete", "delete_many") and owner not in ("sa", "session"):
                yield f"{owner}.{node.func.attr}"


def test_bytes_are_removed_by_erasure_alone() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): calls
        for package in ("catalog", "flows", "workers", "cli")
        for path in (ROOT / package).rglob("*.py")
        if (calls := list(removals(path)))
    }
    assert {name for name in found if name in ALLOWED} == ALLOWED
    assert not {name: calls for name, calls in found.items() if name not in ALLOWED}
