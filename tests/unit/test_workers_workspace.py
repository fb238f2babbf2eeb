"""Work directories that jobs use one after the other."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from workers.workspace import Workspaces, _seen


@pytest.fixture
def workspaces(tmp_path: Path) -> Workspaces:
    return Workspaces(tmp_path)


def everything(root: str) -> set[str]:
    return {str(path.relative_to(root)) for path in Path(root).rglob("*")}


def test_the_next_job_gets_the_same_directory_without_a_trace_of_the_last(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    outside = tmp_path / "kept"
    outside.mkdir()
    (outside / "file").write_text("x")
    with workspaces.take() as first:
        Path(first.out, "deep/er").mkdir(parents=True)
        Path(first.out, "deep/er/file").write_text("x")
        Path(first.tmp, "a").write_text("x")
        Path(first.tmp, "a").chmod(0)
        Path(first.stage, "link").symlink_to(outside)
        Path(first.inputs, "7").mkdir()
        Path(first.log).write_text("said")
        Path(first.out).chmod(0o500)
    with workspaces.take() as second:
        assert second.root == first.root
        assert everything(second.root) == {"out", "tmp", "stage", "in", "log"}
        assert Path(second.log).read_text() == ""
        assert Path(second.out).stat().st_mode & 0o777 == 0o755
    assert (outside / "file").read_text() == "x", "links are removed, not what they lead to"


def test_jobs_at_the_same_time_have_directories_of_their_own(workspaces: Workspaces) -> None:
    with workspaces.take() as one, workspaces.take() as other:
        assert one.root != other.root


@pytest.mark.parametrize("folder", ["out", "tmp", "stage", "in"])
def test_a_directory_that_was_exchanged_is_given_up(
    workspaces: Workspaces, folder: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    (other / "deep").mkdir(parents=True)
    (other / "deep" / "file").write_text("x")
    with workspaces.take() as first:
        path = Path(first.root, folder)
        path.rmdir()
        path.symlink_to(other)
    assert not Path(first.root).exists()
    with workspaces.take() as second:
        assert second.root != first.root
        assert everything(second.root) == {"out", "tmp", "stage", "in"}
    assert (other / "deep" / "file").read_text() == "x", "what the link led to is as it was"


def test_a_directory_with_something_beside_its_folders_is_given_up(workspaces: Workspaces) -> None:
    with workspaces.take() as first:
        Path(first.out, "../beside").write_text("x")
    with workspaces.take() as second:
        assert second.root != first.root
        assert everything(second.root) == {"out", "tmp", "stage", "in"}


def test_a_time_that_another_change_may_share_tells_nothing(tmp_path: Path) -> None:
    """Of kernels whose file times are coarse: two changes within a tick have the same one."""
    assert _seen(str(tmp_path)).changed_ns is None
    old = _seen("/")
    assert old.changed_ns == os.stat("/").st_ctime_ns  # noqa: PTH116


def test_a_job_that_fails_leaves_nothing_either(workspaces: Workspaces) -> None:
    with pytest.raises(RuntimeError), workspaces.take() as first:
        Path(first.out, "half").write_text("x")
        raise RuntimeError
    with workspaces.take() as second:
        assert second.root == first.root and os.listdir(second.out) == []  # noqa: PTH208


def test_a_directory_in_which_something_may_still_be_at_work_is_given_up(
    workspaces: Workspaces,
) -> None:
    with workspaces.take() as first:
        first.spoil()
    assert not Path(first.root).exists()
    with workspaces.take() as second:
        assert second.root != first.root


DEEP = 3000
"""More folders one in the other than Python calls functions, or a path has room for."""


def test_a_tree_that_is_hard_to_remove_is_removed(workspaces: Workspaces) -> None:
    with workspaces.take() as first:
        script = f"import os\nfor _ in range({DEEP}): os.mkdir('d'); os.chdir('d')"
        subprocess.run([sys.executable, "-c", script], cwd=first.tmp, check=True)
    assert not Path(first.root).exists()
    with workspaces.take() as second:
        assert everything(second.root) == {"out", "tmp", "stage", "in"}


@pytest.mark.parametrize("folder", ["out", "tmp", "stage", "in"])
def test_a_directory_that_was_removed_is_given_up(workspaces: Workspaces, folder: str) -> None:
    with workspaces.take() as first:
        Path(first.root, folder).rmdir()
    assert not Path(first.root).exists()
    with workspaces.take() as second:
        assert everything(second.root) == {"out", "tmp", "stage", "in"}


USER = 1234
CLOSED = """
import os, sys
from pathlib import Path
from workers.workspace import remove_tree
root = Path("root")
(root / "a" / "b" / "c d").mkdir(parents=True)
(root / "a" / "b" / "linked").hardlink_to("kept")
(root / "a" / "link").symlink_to("../../folder")
for path in (root / "a" / "b" / "c d", root / "a" / "b", root / "a"):
    path.chmod(0o400)
remove_tree(root)
remove_tree(Path("none"))
"""


def test_closed_folders_are_removed_and_what_is_linked_keeps_its_mode() -> None:
    place = Path(tempfile.mkdtemp(prefix="spdf-user-"))
    try:
        (place / "folder").mkdir(mode=0o500)
        (place / "kept").write_text("x")
        (place / "kept").chmod(0o444)
        words = [sys.executable, "-c", CLOSED]
        if os.getuid() == 0:
            for path in (place, place / "folder", place / "kept"):
                os.chown(path, USER, USER)
            words = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *words]
        repository = str(Path(__file__).parents[2])
        done = subprocess.run(
            words, cwd=place, env={**os.environ, "PYTHONPATH": repository, "HOME": str(place)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(path.name for path in place.iterdir()) == ["folder", "kept"]
        assert (place / "kept").stat().st_mode & 0o777 == 0o444, "it is a file of a storage"
        assert (place / "folder").stat().st_mode & 0o777 == 0o500
    finally:
        shutil.rmtree(place)


def test_a_job_ends_as_it_did_though_the_node_has_no_file_left_to_remove_anything(
    workspaces: Workspaces,
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    try:
        with workspaces.take() as work:
            Path(work.out, "folder").mkdir()
            root = work.root
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert Path(root).exists()
    with workspaces.take() as other:
        assert other.root != root, "it is given up"
