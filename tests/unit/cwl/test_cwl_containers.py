"""The command line that makes a payload's container, and what a DockerRequirement may say."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import BadTemplate, ErrorCode
from workers.cwl import ToolFailure, load_tool
from workers.cwl.containers import MANY_MOUNTS, Confines, Containers, Mount, input_mounts
from workers.cwl.images import Image, image_of
from workers.cwl.process import Command

IMAGE = Image("box:1")


def line(
    engine: str = "docker", label: str = "", stdin: str | None = None, **more: Any
) -> list[str]:
    """The words that make a container of `cat -n`."""
    command = Command(["cat", "-n"], {"A": "x=1"}, "/w/out", "/w/log", stdin=stdin)
    given = {"cores": 0.5, "memory_mib": 64, "mounts": (), **more}
    confines = Confines(image=IMAGE, workdir="/w/out", **given)
    return Containers(engine, label).create_line("n", confines, command)


def pairs(words: list[str]) -> list[tuple[str, str]]:
    return list(pairwise(words))


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_container_is_confined(engine: str) -> None:
    words = line(engine)
    assert words[:2] == [engine, "create"]
    assert words[-5:] == ["--env", "A=x=1", "box:1", "cat", "-n"]
    assert {
        ("--user", f"{os.getuid()}:{os.getgid()}"), ("--network", "none"), ("--memory", "64m"),
        ("--memory-swap", "64m"), ("--cpus", "0.5"), ("--pull", "never"), ("--workdir", "/w/out"),
        ("--security-opt", "no-new-privileges"), ("--cap-drop", "ALL"),
    } <= set(pairs(words))  # fmt: skip
    assert words.count("--env") == 1
    assert not {"--label", "--interactive", "--gpus", "--device", "--mount"} & set(words)


def test_a_network_a_label_and_stdin_are_given_where_they_are_asked_for() -> None:
    words = line(label="/w/pilot-7", stdin="/x", network=True)
    assert "--network" not in words
    assert "--interactive" in words
    assert ("--label", "spdf.payload=/w/pilot-7") in pairs(words)


def test_devices_are_named_as_each_engine_wants_them() -> None:
    assert ("--gpus", '"device=0,3"') in pairs(line(devices=(0, 3)))
    podman = pairs(line("podman", devices=(0, 3)))
    assert ("--device", "nvidia.com/gpu=0") in podman
    assert ("--device", "nvidia.com/gpu=3") in podman


def test_limits_stay_within_what_engines_take() -> None:
    words = pairs(line(cores=10_000, memory_mib=1))
    assert ("--memory", "6m") in words
    assert ("--cpus", f"{os.cpu_count()}") in words


def test_podman_of_a_user_keeps_the_users_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert ("--userns", "keep-id") in pairs(line("podman"))
    assert "--userns" not in line("docker")


def test_any_path_can_be_mounted() -> None:
    assert Mount("/a", "/b").words() == ["--mount", "type=bind,source=/a,target=/b,readonly"]
    words = Mount('/a,"b"', "/c", writable=True).words()
    assert words == ["--mount", 'type=bind,"source=/a,""b""",target=/c']


def test_inputs_are_mounted_where_their_links_lead(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.touch()
    link.symlink_to(real)
    own = tmp_path / "own"
    sources = [str(link), str(link), str(own / "literal"), str(own)]
    (mount,) = input_mounts(sources, [str(own)], writable=False)
    assert mount == Mount(str(real), str(link))


def test_of_many_inputs_the_directories_are_mounted(tmp_path: Path) -> None:
    first, second, third = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for folder in (first, second, third):
        folder.mkdir()
    links = []
    for number in range(MANY_MOUNTS + 1):
        (third / f"{number}").touch()
        (second / f"{number}").symlink_to(f"../c/{number}")
        links.append(first / f"{number}")
        links[-1].symlink_to(second / f"{number}")
    mounts = input_mounts(map(str, links), [], writable=False)
    assert mounts == [Mount(str(one), str(one)) for one in (first, second, third)]


def test_mounts_stay_few_however_many_folders_the_inputs_lie_in(tmp_path: Path) -> None:
    files = [tmp_path / f"set-{n % 3}" / f"key-{n}" / "a1" / "out" for n in range(1000)]
    for path in files:
        path.parent.mkdir(parents=True)
        path.touch()
    mounts = input_mounts(map(str, files), [], writable=False)
    assert sorted(mounts, key=lambda m: m.target) == [
        Mount(str(tmp_path / f"set-{n}"), str(tmp_path / f"set-{n}")) for n in range(3)
    ]


def test_an_image_is_named_by_its_id_or_by_what_is_pulled() -> None:
    assert image_of({"dockerPull": "a:1"}) == Image("a:1", pull="a:1")
    both = image_of({"dockerPull": "a:1", "dockerImageId": "b", "dockerOutputDirectory": "/o/"})
    assert both == Image("b", pull="a:1", outdir="/o")
    loaded = image_of({"dockerImageId": "b", "dockerLoad": "file:///s/a%20b.tar"})
    assert loaded == Image("b", load="/s/a b.tar")


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        ({"dockerFile": "FROM x", "dockerImageId": "x"}, "build it once"),
        ({"dockerImport": "x.tar", "dockerImageId": "x"}, "build it once"),
        ({}, "names no image"),
        ({"dockerLoad": "/x.tar"}, "names no image"),
        ({"dockerLoad": "x.tar", "dockerImageId": "x"}, "absolute path of an archive"),
        ({"dockerLoad": "http://h/x.tar", "dockerImageId": "x"}, "absolute path of an archive"),
        ({"dockerPull": "--privileged"}, "no dash"),
        ({"dockerPull": "x", "dockerOutputDirectory": "out"}, "absolute path"),
        ({"dockerPull": "x", "dockerOutputDirectory": "/a/../etc"}, "absolute path"),
    ],
)
def test_an_image_that_nodes_can_not_get_is_refused(
    requirement: dict[str, Any], words: str
) -> None:
    entry = {"class": "DockerRequirement", **requirement}
    tool = {"class": "CommandLineTool", "cwlVersion": "v1.2", "inputs": [], "outputs": []}
    with pytest.raises(BadTemplate, match=words):
        load_tool({**tool, "requirements": [entry]})


def test_an_engine_that_is_not_installed_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolFailure, match="no command 'podman'") as caught:
        Containers("podman").ensure(IMAGE)
    assert caught.value.code is ErrorCode.CONTAINER_ENGINE_MISSING
