"""What a tool's DockerRequirement asks for: CWL v1.2 CommandLineTool, section DockerRequirement."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catalog.errors import BadTemplate
from workers.cwl.files import local_path

_BUILT = ("dockerFile", "dockerImport")


@dataclass(frozen=True)
class Image:
    """An image by name, and how a node without it gets it.

    `pull` names it in a registry; `load` is an archive's path on the nodes; `outdir` is where the
    output directory lies in the container, None where it is as outside.
    """

    name: str
    pull: str | None = None
    load: str | None = None
    outdir: str | None = None


def image_of(requirement: Mapping[str, Any]) -> Image:
    """The image of a DockerRequirement; raises BadTemplate for one that nodes can't get."""
    for key in _BUILT:
        if requirement.get(key) is not None:
            raise BadTemplate(
                f"DockerRequirement has `{key}`, and nodes build no images; build it once and "
                "name it by `dockerPull`, or by `dockerImageId` where the nodes have it"
            )
    pull, load = _text(requirement, "dockerPull"), _text(requirement, "dockerLoad")
    name = _text(requirement, "dockerImageId") or pull
    if name is None:
        raise BadTemplate("DockerRequirement names no image; give `dockerPull` or `dockerImageId`")
    if load is not None:
        path = local_path(load)
        if path is None or not path.startswith("/"):
            raise BadTemplate(
                f"`dockerLoad` is {load!r}; give the absolute path of an archive that the nodes see"
            )
        load = path
    outdir = _text(requirement, "dockerOutputDirectory")
    if outdir is not None and (not outdir.startswith("/") or ".." in outdir.split("/")):
        raise BadTemplate(f"`dockerOutputDirectory` is {outdir!r}; give an absolute path")
    return Image(name, pull, load, None if outdir is None else outdir.rstrip("/") or None)


def _text(requirement: Mapping[str, Any], key: str) -> str | None:
    value = requirement.get(key)
    if value is not None and (not isinstance(value, str) or not value or value.startswith("-")):
        raise BadTemplate(
            f"`{key}` of DockerRequirement is {value!r}; give a text that begins with no dash"
        )
    return value
