"""How the files are called that a stage gives, where the template alone tells."""

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass

from flows.plan import Source, Stage, StageKind
from workers.cwl.expressions import parse_reference
from workers.cwl.parameters import OutputBinding
from workers.cwl.scanner import Code, Literal, scan
from workers.cwl.tool import Tool, load_tool


@dataclass(frozen=True)
class OneName:
    """A name that all files of a source have, and the stage whose tool says it word for word."""

    name: str
    stage: Stage

    @property
    def better(self) -> str:
        """A name that the stage could give its files instead: by their input."""
        ports = (link.port for link in self.stage.links if link.kind == "File")
        suffix = os.path.splitext(self.name)[1]  # noqa: PTH122 - no path
        return f"$(inputs.{next(ports, 'FILE')}.nameroot){suffix or '.out'}"


class OutputNames:
    """Knows the names of what some stages give."""

    def __init__(self, stages: Iterable[Stage]) -> None:
        self.stages = {one.name: one for one in stages}
        self._tools: dict[str, Tool] = {}

    def tool(self, stage: Stage) -> Tool:
        """The tool of a stage, compiled."""
        if stage.name not in self._tools:
            self._tools[stage.name] = load_tool(stage.step.tool)
        return self._tools[stage.name]

    def of(self, source: Source) -> OneName | None:
        """The one name of a source's files.

        None where they differ from job to job, where an expression may rename them, and where a
        job may give none.
        """
        if source.stage is None:
            return None
        stage = self.stages[source.stage]
        declared = next(one for one in self.tool(stage).outputs if one.name == source.port)
        binding = declared.output
        if stage.step.when is not None or declared.type.kind != "File" or binding is None:
            return None
        if binding.output_eval is not None or len(binding.globs) != 1:
            return None
        return self._found(stage, binding)

    def _found(self, stage: Stage, binding: OutputBinding) -> OneName | None:
        """What a glob finds, if that is called alike in each job."""
        (pattern,) = binding.globs
        if pattern.constant:
            text, origin = str(pattern.text), stage
        else:
            pieces = [self._piece(stage, one) for one in scan(str(pattern.text).strip())]
            known = [one for one in pieces if one is not None]
            if not known or len(known) < len(pieces):
                return None
            text = "".join(one.name for one in known)
            origin = next((one.stage for one in known if one.stage is not stage), stage)
        if not binding.literal and ("\\" in text or glob.has_magic(text)):
            return None
        return OneName(os.path.basename(os.path.normpath(text)), origin)  # noqa: PTH119

    def _piece(self, stage: Stage, part: Literal | Code) -> OneName | None:
        """A part of a name: a text, or what a reference takes of an input's own name."""
        if isinstance(part, Literal):
            return OneName(part.text, stage)
        found = parse_reference(part.text)
        if found is None or found.root != "inputs" or len(found.segments) != 2:
            return None
        port, key = found.segments
        link = next((one for one in stage.links if one.port == port), None)
        renamed = any(one.port == port and one.value_from for one in stage.step.inputs)
        if link is None or renamed or link.kind != "File" or len(link.sources) != 1:
            return None
        named = None if stage.kind is StageKind.MERGE else self.of(link.sources[0])
        if named is None:
            return None
        root, ending = os.path.splitext(named.name)  # noqa: PTH122 - no path
        text = {"basename": named.name, "nameroot": root, "nameext": ending}.get(str(key))
        return None if text is None else OneName(text, named.stage)
