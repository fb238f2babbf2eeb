"""Templates: a CWL document becomes a plan, or is refused with its line and the mend."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.errors import BadInput
from flows.compile.form import parameter_schema, parse_input
from flows.compile.graph import graph
from flows.compile.hints import SPDF
from flows.compile.located import locate, plain
from flows.compile.mask import check_syntax, fits_outputs, output_tail
from flows.compile.pack import pack
from flows.compile.template import build, dataset_tails
from flows.plan import Plan

__all__ = [
    "SPDF",
    "Compiled",
    "check_mask",
    "compile_document",
    "compile_template",
    "graph",
    "parameter_schema",
    "parse_input",
]


@dataclass(frozen=True)
class Compiled:
    """A template as it is stored.

    `document` is one self-contained CWL Workflow, which other runners take as it is; `digest` the
    sha256 (hex) of its canonical JSON; `warnings` are sentences for the author.
    """

    plan: Plan
    document: dict[str, Any]
    digest: str
    warnings: tuple[str, ...] = ()


def compile_template(path: Path) -> Compiled:
    """Compile the CWL workflow in the file `path`, with the files that it refers to.

    Raises BadTemplate with the file, the line, the reason and the mend for all that can't run
    here.
    """
    packed = pack(path)
    plan, warnings = build(packed)
    document = plain(packed)
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    return Compiled(plan, document, digest, warnings)


def compile_document(document: Mapping[str, Any]) -> Plan:
    """The plan of a document that `compile_template` packed: the same plan again."""
    plan, _ = build(locate(dict(document)))
    return plan


def check_mask(name: str, version: int, plan: Plan, mask: str) -> None:
    """Raise BadInput if `mask` is no mask of dataset names, or fits the template's own outputs.

    A workflow of template `name` makes datasets `<input>.<name>.v<version>[.rN].<step>.<port>`;
    if one of them fits the mask, for any input that does, the template would feed itself.
    """
    glob = check_syntax(mask)
    found = fits_outputs(glob, output_tail(name, version, dataset_tails(plan.stages)))
    if found is not None:
        raise BadInput(
            f"mask {mask!r} fits the template's own outputs, such as {found!r}; end it so that "
            "they don't fit, as in `run-????` or `run-*[0-9]`."
        )
