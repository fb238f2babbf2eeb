"""Payloads in containers of docker or podman: made, watched, and gone before outputs are looked at.

A container is created, started and removed by commands of their own, so that what the engine has to
say stays apart from what the payload prints, and its end can be asked for.
"""

# Paths are plain strings here, as in the rest of staging.
# ruff: noqa: PTH114, PTH115, PTH118, PTH120

import json
import os
import secrets
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from catalog.errors import ErrorCode
from workers.cwl.failures import NotEnded, ToolFailure, ToolStopped, no_engine
from workers.cwl.images import Image
from workers.cwl.left import end_of
from workers.cwl.meter import Meter
from workers.cwl.process import Command, Ended, run_command
from workers.reapers import Reapers

PODMAN = "podman"
MANY_MOUNTS = 64
"""Above so many inputs their directories are mounted, not each of them, and of many directories
those above."""

_LABEL = "spdf.payload"
_ENGINE_NAMES = frozenset({"PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE"})
_ENGINE_PREFIXES = ("DOCKER_", "CONTAINER", "STORAGE_", "LC_", "LANG")
_CALL_S = 60.0
_FETCH_S = 1800.0
_LEAST_MIB = 6
"""Docker refuses a lower memory limit."""
_NEVER = "0001-01-01"
_NO_PROGRAM = ("unable to start container process: exec:", "executable file")
"""What runc and crun say of a program that isn't there or can't be run."""
_TAIL_BYTES = 500


@dataclass(frozen=True)
class Mount:
    """A file or directory of the node, and where the container sees it."""

    source: str
    target: str
    writable: bool = False

    def words(self) -> list[str]:
        """Its option: one line of CSV, so that any path can stand in it."""
        fields = ["type=bind", f"source={self.source}", f"target={self.target}"]
        fields += [] if self.writable else ["readonly"]
        return ["--mount", ",".join(_csv(field) for field in fields)]


def _csv(field: str) -> str:
    quoted = field.replace('"', '""')
    return f'"{quoted}"' if any(sign in field for sign in ',"\n\r') else field


@dataclass(frozen=True)
class Confines:
    """What a payload may see and use. `cores` and `memory_mib` are limits."""

    image: Image
    workdir: str
    mounts: Sequence[Mount]
    cores: float
    memory_mib: int
    network: bool = False
    devices: Sequence[int] = ()


@dataclass(frozen=True)
class Containers:
    """The engine of a node. `label` marks the containers of one pilot."""

    engine: str
    label: str = ""

    def ensure(self, image: Image) -> None:
        """Have an image on this node, pulled or loaded if need be, for half an hour at most.

        Raises `ToolFailure` (CONTAINER_IMAGE_MISSING, CONTAINER_FAILED, CONTAINER_ENGINE_MISSING).
        """
        if self._has(image.name):
            return
        said = "nothing says where to get it"
        words = _fetching(image)
        if words:
            said = self._call(words, limit_s=_FETCH_S).stderr.strip()[-500:]
        if not words or not self._has(image.name):
            raise ToolFailure(
                ErrorCode.CONTAINER_IMAGE_MISSING,
                f"image {image.name!r} is not on this node ({said}); `{self.engine} pull` or "
                f"`{self.engine} load` it there, then release the jobs",
            )

    def run(
        self,
        confines: Confines,
        command: Command,
        reapers: Reapers,
        stop: threading.Event | None = None,
    ) -> Ended:
        """As `run_command`, in a container that is gone at the end, whatever the end is.

        Raises `ToolFailure` (CONTAINER_FAILED, CONTAINER_IMAGE_MISSING, CONTAINER_ENGINE_MISSING,
        too), `ToolStopped`.
        """
        if stop is not None and stop.is_set():
            raise ToolStopped
        name = f"spdf-{secrets.token_hex(12)}"
        try:
            meter = Meter(self._create(name, confines, command))
            attached = self._attached(name, command)
            try:
                ended = run_command(attached, reapers, stop, meter.look)
            except (ToolFailure, ToolStopped) as fault:
                fault.cpu_s, fault.peak_rss_bytes = meter.cpu_s, meter.peak_rss_bytes
                raise
            state = self._state(name)
        finally:
            self._remove(name)
        exit_code = self._judge(state, ended, confines, command)
        killed = bool(state.get("OOMKilled"))
        return Ended(exit_code, meter.cpu_s, meter.peak_rss_bytes, out_of_memory=killed)

    def remove_all(self) -> None:
        """Remove all containers with the label; raises `ToolFailure` where that can't be done."""
        wanted = ("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={self._mark}")
        found = self._call(wanted)
        if found.returncode:
            raise self._failed("can't list containers", found)
        names = found.stdout.split()
        for one in names:
            self._remove(one)

    def create_line(self, name: str, confines: Confines, command: Command) -> list[str]:
        """The command line that makes the container of a payload."""
        memory = f"{max(_LEAST_MIB, confines.memory_mib)}m"
        cores = min(max(0.01, confines.cores), float(os.cpu_count() or 1))
        words = [
            self.engine, "create", "--name", name, "--pull", "never", "--log-driver", "none",
            "--user", f"{os.getuid()}:{os.getgid()}",
            "--security-opt", "no-new-privileges", "--cap-drop", "ALL",
            "--memory", memory, "--memory-swap", memory, "--cpus", f"{cores:g}",
            "--workdir", confines.workdir,
        ]  # fmt: skip
        for group in sorted({*os.getgroups()} - {os.getgid()}):
            words += ["--group-add", str(group)]
        if self.engine == PODMAN and os.getuid() != 0:
            words += ["--userns", "keep-id"]
        if self.label:
            words += ["--label", self._mark]
        if not confines.network:
            words += ["--network", "none"]
        if command.stdin is not None:
            words.append("--interactive")
        words += self._device_words(confines.devices)
        for mount in confines.mounts:
            words += mount.words()
        for key, value in command.environment.items():
            words += ["--env", f"{key}={value}"]
        return [*words, confines.image.name, *command.argv]

    @property
    def _mark(self) -> str:
        return f"{_LABEL}={self.label}"

    def _device_words(self, devices: Sequence[int]) -> list[str]:
        if not devices:
            return []
        if self.engine == PODMAN:
            return [word for n in devices for word in ("--device", f"nvidia.com/gpu={n}")]
        # The engine reads the value as CSV, in which the commas belong to the field.
        return ["--gpus", f'"device={",".join(str(n) for n in devices)}"']

    def _create(self, name: str, confines: Confines, command: Command) -> str:
        """Make the container; gives its id."""
        done = self._call(self.create_line(name, confines, command)[1:])
        if done.returncode == 0:
            return done.stdout.split()[-1]
        if _unknown_image(done.stderr):
            image = confines.image.name
            raise ToolFailure(
                ErrorCode.CONTAINER_IMAGE_MISSING,
                f"image {image!r} is not on this node any more; `{self.engine} pull` it there",
            )
        raise self._failed("can't make a container", done)

    def _attached(self, name: str, command: Command) -> Command:
        """What starts the container, with the payload's streams, and ends with it."""
        interactive = [] if command.stdin is None else ["--interactive"]
        return replace(
            command,
            argv=[self.engine, "start", "--attach", *interactive, name],
            environment=_engine_environment(),
        )

    def _judge(
        self, state: Mapping[str, Any], ended: Ended, confines: Confines, command: Command
    ) -> int:
        """The payload's exit code, if it ran to its end."""
        code = int(state.get("ExitCode", -1))
        if str(state.get("StartedAt", _NEVER)).startswith(_NEVER):
            # Podman tells it only to who is attached, where else the payload would print.
            reason = str(state.get("Error") or "") or _tail(command.stderr or command.log)
            if code in (126, 127) or any(words in reason for words in _NO_PROGRAM):
                program = command.argv[0] if command.argv else "(that of the image)"
                raise ToolFailure(
                    ErrorCode.PROGRAM_NOT_FOUND,
                    f"program {program!r} can't be run in image {confines.image.name!r}: {reason}",
                )
            raise ToolFailure(
                ErrorCode.CONTAINER_FAILED, f"{self.engine} can't start a container: {reason}"
            )
        if state.get("Running") or code < 0:
            raise ToolFailure(
                ErrorCode.CONTAINER_FAILED,
                f"{self.engine} ended with exit code {ended.exit_code} before the payload did",
            )
        return code

    def _state(self, name: str) -> dict[str, Any]:
        done = self._call(("inspect", "--format", "{{json .State}}", name))
        if done.returncode:
            raise self._failed("can't tell how a container ended", done)
        state: dict[str, Any] = json.loads(done.stdout)
        return state

    def _remove(self, name: str) -> None:
        """Kill and remove a container, and with it all its processes; none can write after this.

        Raises `NotEnded` where the engine doesn't say so.
        """
        # Podman would ask first, and wait ten seconds for an answer.
        at_once = ("--time", "0") if self.engine == PODMAN else ()
        try:
            done = self._call(("rm", "--force", "--volumes", *at_once, name))
        except ToolFailure as fault:
            raise NotEnded(fault.code, f"a container may still run: {fault.message}") from fault
        if done.returncode and "no such container" not in done.stderr.lower():
            failed = self._failed("can't remove a container, which may still run", done)
            raise NotEnded(failed.code, failed.message)

    def _has(self, image: str) -> bool:
        done = self._call(("image", "inspect", "--format", "{{.Id}}", image))
        if done.returncode and not _unknown_image(done.stderr):
            raise self._failed("can't look for an image", done)
        return done.returncode == 0

    def _call(
        self, words: Sequence[str], *, limit_s: float = _CALL_S
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self.engine, *words],
                env=_engine_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=limit_s,
                check=False,
            )
        except FileNotFoundError:
            raise no_engine(f"the node has no command {self.engine!r}") from None
        except subprocess.TimeoutExpired:
            raise ToolFailure(
                ErrorCode.CONTAINER_FAILED,
                f"`{self.engine} {words[0]}` gave no answer for {limit_s:g} s",
            ) from None
        except OSError as error:
            raise ToolFailure(
                ErrorCode.CONTAINER_FAILED, f"{self.engine} can't be run: {error}"
            ) from error

    def _failed(self, what: str, done: subprocess.CompletedProcess[str]) -> ToolFailure:
        said = " ".join(done.stderr.split())[-500:]
        return ToolFailure(ErrorCode.CONTAINER_FAILED, f"{self.engine} {what}: {said}")


def _engine_environment() -> dict[str, str]:
    """What the engine's command may need of our environment: no login of ours is among it."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _ENGINE_NAMES or name.startswith(_ENGINE_PREFIXES)
    }


def input_mounts(sources: Iterable[str], own: Sequence[str], *, writable: bool) -> list[Mount]:
    """Mounts of inputs, at the places where their links lead; not of what lies in `own` folders."""
    wanted = [
        one
        for one in dict.fromkeys(sources)
        if not any(one == folder or one.startswith(f"{folder}/") for folder in own)
    ]
    if len(wanted) > MANY_MOUNTS:
        wanted = list(dict.fromkeys(folder for one in wanted for folder in _folders(one)))
    while len(wanted) > MANY_MOUNTS:
        deepest = max(one.count("/") for one in wanted)
        wanted = list(
            dict.fromkeys(
                os.path.dirname(one) if one.count("/") == deepest else one for one in wanted
            )
        )
    return [Mount(os.path.realpath(one), one, writable) for one in wanted]


def _folders(path: str) -> Iterable[str]:
    """The folder of a path, and those of what it links to."""
    yield os.path.dirname(path)
    while os.path.islink(path):
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        yield os.path.dirname(path)


def _fetching(image: Image) -> tuple[str, ...]:
    if image.load is not None:
        return ("load", "--quiet", "--input", image.load)
    return () if image.pull is None else ("pull", "--quiet", image.pull)


def _tail(path: str) -> str:
    return " ".join(end_of(path, _TAIL_BYTES).decode("utf-8", "replace").split())


def _unknown_image(said: str) -> bool:
    """Whether docker or podman say that they have no such image."""
    lower = said.lower()
    return any(words in lower for words in ("no such image", "image not known", "no such object"))
