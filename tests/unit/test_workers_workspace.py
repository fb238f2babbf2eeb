"""Work directories that jobs use one after the other."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.machine import until
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


@pytest.mark.parametrize("folder", ["out", "tmp"])
def test_a_directory_that_was_exchanged_is_given_up(
    workspaces: Workspaces, folder: str, tmp_path: Path
) -> None:
    with workspaces.take() as first:
        path = Path(first.root, folder)
        path.rmdir()
        path.symlink_to(tmp_path)
    assert not Path(first.root).exists()
    with workspaces.take() as second:
        assert second.root != first.root
        assert everything(second.root) == {"out", "tmp", "stage", "in"}
    assert tmp_path.is_dir()


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


def test_a_process_that_left_its_group_can_not_write_where_the_next_job_does(
    workspaces: Workspaces,
) -> None:
    script = "setsid sleep 60 >/dev/null 2>&1 & echo $!"
    with workspaces.take() as first, first.leash() as leash:
        shell = subprocess.run(
            ["sh", "-c", script], stdout=subprocess.PIPE, pass_fds=[leash], check=True
        )
    escaped = int(shell.stdout)
    try:
        until(lambda: os.getpgid(escaped) == escaped, "it has left its group", 20)
        assert not Path(first.root).exists()
        with workspaces.take() as second:
            assert second.root != first.root
    finally:
        os.kill(escaped, signal.SIGKILL)


def test_a_payload_that_ended_lets_go_of_the_leash(workspaces: Workspaces) -> None:
    with workspaces.take() as first, first.leash() as leash:
        subprocess.run(["true"], pass_fds=[leash], check=True)
    with workspaces.take() as second:
        assert second.root == first.root
