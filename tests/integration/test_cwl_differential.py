"""Generated tools end here as they do in cwltool, but for the differences that are known."""

from pathlib import Path

import pytest

from tests.differential.__main__ import compare
from tests.differential.known import KNOWN

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "cwl-differences.md"
SEED, CASES, BATCH = 26, 50, 10

pytestmark = [
    pytest.mark.cwltool,
    # What cwltool and its libraries warn of is theirs.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.mark.parametrize("first", range(0, CASES, BATCH))
def test_generated_tools_end_as_in_cwltool(first: int, tmp_path: Path) -> None:
    found = list(compare(SEED, range(first, first + BATCH), tmp_path))
    differ = [f"{one.case}: {one.told}" for one in found if one.told and not one.name]
    assert not differ, "\n".join(differ)
    assert any(one.succeeded for one in found)


def test_each_known_difference_is_told_in_the_docs() -> None:
    of_the_command = DOCS.read_text().partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in of_the_command.splitlines() if "|" in line]
    assert rows[2:] == list(KNOWN)
