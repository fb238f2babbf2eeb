"""What a node has: its memory and its GPUs."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pynvml

from catalog.errors import BadInput
from catalog.settings import Settings
from workers.slots import Capacity

_NVIDIA = re.compile(r"nvidia(\d+)\Z")
_MIB = 2**20
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Device:
    """A GPU. `number` is NVML's, by PCI bus; name, uuid and memory are None where unknown."""

    number: int
    name: str | None = None
    uuid: str | None = None
    memory_mib: int | None = None


def capacity(settings: Settings) -> Capacity:
    """What this node offers to jobs, by its settings or else by what it has."""
    numbers = tuple(device.number for device in devices(settings))
    return Capacity(settings.slots, settings.memory_mib or memory_mib(), numbers)


def has_gpu(settings: Settings) -> bool:
    """Whether this machine has a GPU, or was told that it has; asks no driver."""
    return bool(settings.devices) or bool(_in_dev())


def memory_mib() -> int:
    """Memory of this machine, or of the control group that we are confined to."""
    total: int = psutil.virtual_memory().total
    with suppress(OSError, ValueError):
        total = min(total, int(_CGROUP_LIMIT.read_text()))
    return max(1, total // _MIB)


def devices(settings: Settings) -> tuple[Device, ...]:
    """The NVIDIA devices that jobs of this node may use.

    Those that SPDF_DEVICES names, or else all that NVML finds (or /dev, where there is no NVML),
    less what CUDA_VISIBLE_DEVICES hides. Raises `BadInput` for a list that is none.
    """
    found = {device.number: device for device in _found()}
    if settings.devices:
        return tuple(found.get(n, Device(n)) for n in _numbers(settings.devices, "SPDF_DEVICES"))
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return tuple(found.values())
    wanted = {part.strip() for part in allowed.split(",")}
    return tuple(d for d in found.values() if str(d.number) in wanted or d.uuid in wanted)


def _numbers(text: str, name: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts) or len(set(parts)) != len(parts):
        raise BadInput(f"{name} is {text!r}; write the numbers of devices, each once, as 0,1.")
    return tuple(int(part) for part in parts)


def _found() -> list[Device]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return _in_dev()
    try:
        return [_device(number) for number in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _device(number: int) -> Device:
    handle = pynvml.nvmlDeviceGetHandleByIndex(number)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total // _MIB
    return Device(
        number, pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetUUID(handle), memory
    )


def _in_dev() -> list[Device]:
    try:
        names = [path.name for path in Path("/dev").iterdir()]
    except OSError:
        return []
    return [Device(int(match[1])) for name in sorted(names) if (match := _NVIDIA.match(name))]
