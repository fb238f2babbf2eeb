"""A file that several outputs of a tool name is in each of them, as in cwltool.

Of an input that is passed through by two outputs cwltool has a KeyError.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.differential.cases import Case
from tests.differential.comparing import difference
from tests.differential.drawing import dump
from tests.differential.runners import ours, theirs

pytestmark = [
    pytest.mark.cwltool,
    # What cwltool and its libraries warn of is theirs.
    pytest.mark.filterwarnings("ignore"),
]

PRINTED = """\
printf '{"a": {"class": "File", "path": "h.dat"}, "b": [{"class": "File", "path": "h.dat"}]}' \
> cwl.output.json"""


def globbed(kind: str, glob: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "outputBinding": {"glob": glob}, **more}


OUTPUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a result and all": ("", {"a": globbed("File", "h.dat"), "b": globbed("File[]", "h*")}),
    "stdout and a glob": ("", {"a": {"type": "stdout"}, "b": globbed("File[]", "*.txt")}),
    "an index and its port": (
        "",
        {"a": globbed("File", "h.dat", secondaryFiles=[".idx"]), "b": globbed("File", "*.idx")},
    ),
    "a folder and a file in it": (
        "",
        {"a": globbed("Directory", "d"), "b": globbed("File", "d/e")},
    ),
    "an output object": (PRINTED, {"a": {"type": "File"}, "b": {"type": "File[]"}}),
}


@pytest.mark.parametrize("which", OUTPUTS)
def test_a_file_of_two_outputs_is_in_both_as_in_cwltool(which: str, tmp_path: Path) -> None:
    more, outputs = OUTPUTS[which]
    script = "echo r > h.dat; echo i > h.dat.idx; mkdir d; echo e > d/e; echo said"
    document: dict[str, Any] = {
        "cwlVersion": "v1.2", "class": "CommandLineTool", "id": "tool",
        "baseCommand": ["sh", "-c", f"{script}; {more}"], "stdout": "said.txt",
        "inputs": [{"id": "f", "type": "File"}],
        "outputs": [{"id": name, **one} for name, one in outputs.items()],
    }  # fmt: skip
    (tmp_path / "in.raw").write_text("raw\n")
    job = {"f": {"class": "File", "path": str(tmp_path / "in.raw")}}
    case = Case(0, 0, which, tmp_path, document, job)
    case.tool.write_text(dump(document))
    case.order.write_text(dump(job))
    mine = ours(case)
    assert mine.outputs is not None, mine
    assert difference(mine, theirs(case)) is None
