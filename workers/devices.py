"""The GPUs of a node."""

import os
import re
from pathlib import Path

_NVIDIA = re.compile(r"nvidia(\d+)\Z")


def visible_devices() -> tuple[int, ...]:
    """Numbers of the NVIDIA devices that this process may use, from /dev and its environment."""
    try:
        found = sorted(
            int(match.group(1))
            for path in Path("/dev").iterdir()
            if (match := _NVIDIA.match(path.name))
        )
    except OSError:
        found = []
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return tuple(found)
    wanted = {int(n) for n in allowed.split(",") if n.strip().isdigit()}
    return tuple(n for n in found if n in wanted)
