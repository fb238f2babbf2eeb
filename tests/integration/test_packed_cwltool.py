"""What other programs pack compiles to the plan of the documents that they packed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.compile import compile_template
from flows.plan import plan_to_json
from tests.documents import TYPED_TOOL, TYPED_WORKFLOW, typed

EXAMPLES = Path(__file__).parents[2] / "examples"
BIN = Path(sys.executable).parent
PACKERS = {"cwltool": (BIN / "cwltool", "--pack"), "cwl-utils": (BIN / "cwl-pack",)}
LIB = "  lib: types.yml#lib\n"
WORKFLOW = TYPED_WORKFLOW.replace(LIB, LIB + '  word: {type: string, default: "010"}\n', 1)
TOOL = TYPED_TOOL.replace(", 2024-01-01", "")
"""To others an unquoted date isn't a text."""

pytestmark = pytest.mark.cwltool


def alike(value: Any) -> Any:
    """A plan without what packing may change: order of ports, spellings of one thing."""
    if isinstance(value, list):
        made = [alike(one) for one in value]
        if all(isinstance(one, dict) for one in made):
            made.sort(
                key=lambda one: str([one.get(key) for key in ("id", "port", "class", "name")])
            )
        return made
    if not isinstance(value, dict):
        return value
    if value.get("type") == "stdout":
        value = {**value, "type": "File", "outputBinding": {"glob": "stdout"}}
    if isinstance(value.get("envDef"), dict):
        pairs = value["envDef"].items()
        value = {**value, "envDef": [{"envName": key, "envValue": one} for key, one in pairs]}
    if "glob" in value:
        value = {**value, "glob": "stdout"}
    kept = {key: one for key, one in value.items() if key not in ("stdout", "doc", "label")}
    return {key: alike(one) for key, one in kept.items() if one not in (None, [], {})}


@pytest.fixture(params=["md5/md5.cwl", "twostage/chain.cwl", "spd/chain.cwl", None])
def document(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A template: each of the examples, and one whose files share their types."""
    if request.param is not None:
        return EXAMPLES / str(request.param)
    return typed(tmp_path, WORKFLOW, TOOL)


@pytest.mark.parametrize("packer", PACKERS)
def test_what_was_packed_compiles_to_the_same_plan(
    packer: str, document: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*map(str, PACKERS[packer]), str(document)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    packed = tmp_path / "packed.cwl"
    packed.write_text(done.stdout)
    expected = alike(plan_to_json(compile_template(document).plan))
    assert alike(plan_to_json(compile_template(packed).plan)) == expected
