"""The reference pages say what the code does."""

import json
import re
from pathlib import Path

from catalog.errors import ERRORS
from catalog.requests import Kind, parse, schema_of
from catalog.settings import Settings
from catalog.states import ALLOWED

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def test_every_error_code_is_explained() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `(\w+)` \| (.+) \|$", _page("errors.md"), re.M)
    expected = [(c, i.phase, i.error_class, i.sentence) for c, i in ERRORS.items()]
    assert rows == [tuple(map(str, row)) for row in expected]


def test_every_transition_is_listed() -> None:
    for section in _page("states.md").split("\n## ")[1:]:
        name = section.splitlines()[0]
        enum = next(e for e in ALLOWED if e.__name__ == f"{name}State")
        rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.M))
        found = {state: set(re.findall(r"`(\w+)`", after)) for state, after in rows.items()}
        assert found == {str(s): {str(t) for t in ALLOWED[enum].get(s, ())} for s in enum}


def _page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def test_every_setting_is_explained() -> None:
    rows = dict(re.findall(r"^\| `(SPDF_\w+)` \| .* \| (.+) \|$", _page("settings.md"), re.M))
    assert rows == {
        f"SPDF_{name.upper()}": field.description for name, field in Settings.model_fields.items()
    }


def test_the_published_schemas_are_those_of_the_program() -> None:
    folder = REFERENCE / "requests"
    assert {path.name for path in folder.iterdir()} == {f"{kind}.json" for kind in Kind}
    for kind in Kind:
        assert json.loads((folder / f"{kind}.json").read_text("utf-8")) == schema_of(kind)


def test_the_example_of_a_request_is_one() -> None:
    (text,) = re.findall(r"```json\n(\{\"kind\".*)\n```", _page("requests.md"))
    assert parse(json.loads(text)).key == "reco-17-4"
