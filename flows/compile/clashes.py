"""Files of one name that all jobs of a stage would put at one path, as the template tells."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flows.compile.located import Mapping, refuse
from flows.compile.outputnames import OutputNames
from flows.compile.wires import ROOT, Port
from flows.plan import Source, Stage, StageKind
from workers.cwl.dirents import Dirent, literals
from workers.cwl.expressions import Expression, parse_reference
from workers.cwl.scanner import scan

_REFERENCE = r"""inputs(?:\.\w+|\[\s*'[^'\\]*'\s*\]|\[\s*"[^"\\]*"\s*\])"""
_LIST = re.compile(rf"[\s\[\],]*{_REFERENCE}(?:[\s\[\]]*,[\s\[\]]*{_REFERENCE})*[\s\[\],]*")
_RETURN = re.compile(r"\{\s*return\s+(.*?);?\s*\}", re.DOTALL)


@dataclass(frozen=True)
class _Thing:
    """What goes to a path of a work folder: its name, what it is, and how often it would come."""

    name: str
    what: Source | str
    index: int | None
    """Of the listing's entry that says so."""
    many: bool = False

    def __str__(self) -> str:
        if isinstance(self.what, str):
            return self.what
        return f"the file that step {self.what.stage!r} gives as {self.what.port!r}"


def check_work_dir(
    stage: Stage, ports: Sequence[Port], requirement: Mapping | None, before: Sequence[Stage]
) -> None:
    """Raise BadTemplate where no job (of more than one file) could have its work folder.

    `requirement` is the InitialWorkDirRequirement that holds for the stage, `before` are the
    stages that it may take from. What an expression may rename, and what may be null, is left to
    the jobs, which look again.
    """
    if requirement is None or stage.step.when is not None:
        return
    folder = _Folder(stage, ports, OutputNames((*before, stage)))
    held: dict[str, _Thing] = {}
    for thing in folder.things():
        other = held.setdefault(thing.name, thing)
        if thing.many:
            reason = folder.repeated(thing)
        elif other.what != thing.what:
            reason = folder.doubled(other, thing)
        else:
            continue
        listing = requirement.get("listing")
        if isinstance(listing, str):
            refuse(reason, requirement, "listing")
        refuse(reason, listing, other.index if thing.index is None else thing.index)


@dataclass(frozen=True)
class _Folder:
    """What lies in the work folder of a stage's jobs."""

    stage: Stage
    ports: Sequence[Port]
    names: OutputNames

    def repeated(self, thing: _Thing) -> str:
        """The reason why the files of one source can't lie there together."""
        assert isinstance(thing.what, Source)
        named = self.names.of(thing.what)
        assert named is not None
        return (
            f"all files that step {thing.what.stage!r} gives as {thing.what.port!r} are called "
            f"{thing.name!r}, and would lie at one path in the work folder of step "
            f"{self.stage.name!r}; name what step {named.stage.name!r} makes by its input, such "
            f"as `{named.better}`, or pass the files by their paths and don't list them."
        )

    def doubled(self, one: _Thing, other: _Thing) -> str:
        """The reason why two things can't lie there together."""
        return (
            f"{one} and {other} would both lie at {one.name!r} in the work folder of step "
            f"{self.stage.name!r}; give one of them another name, or an `entryname` of its own."
        )

    def things(self) -> Iterator[_Thing]:
        """All whose name the template alone tells."""
        tool = self.names.tool(self.stage)
        if isinstance(tool.work_dir, Expression):
            yield from self._listed(tool.work_dir, None)
            return
        for index, entry in enumerate(tool.work_dir):
            if isinstance(entry, Expression):
                for name, _ in literals(entry):
                    yield _Thing(_normal(name), f"the literal {name!r}", index)
                yield from self._listed(entry, index)
            elif entry.name is None:
                yield from self._listed(entry.entry, index)
            elif entry.name.constant:
                yield from self._named(entry, _normal(entry.name.text), index)
        for stream in (tool.streams.stdout, tool.streams.stderr):
            if stream is not None and stream.constant:
                yield _Thing(_normal(stream.text), "what its tool prints", None)

    def _named(self, entry: Dirent, name: str, index: int) -> Iterator[_Thing]:
        if not entry.entry.is_sole:
            yield _Thing(name, f"the text of `entryname: {name}`", index)
            return
        for thing in self._listed(entry.entry, index):
            if not thing.many:
                yield _Thing(name, thing.what, index)

    def _listed(self, expression: Expression, index: int | None) -> Iterator[_Thing]:
        for port in _inputs(expression):
            yield from self._files(port, index)

    def _files(self, name: str, index: int | None) -> Iterator[_Thing]:
        """The files of a port that come from stages which give each the same name."""
        port = next((one for one in self.ports if one.name == name), None)
        if port is None or port.wire is None or port.value_from is not None:
            return
        if port.wire.gathering is not None and port.wire.gathering.pick is not None:
            return
        for feed in port.feeds():
            wire = feed.wire
            if wire is None or wire.pick is not None or wire.nulls or wire.gone:
                continue
            for source in wire.sources:
                named = self.names.of(source)
                if named is not None:
                    many = wire.descent == ROOT and self._takes_many(source)
                    yield _Thing(named.name, source, index, many)

    def _takes_many(self, source: Source) -> bool:
        """Whether jobs have several files of a source that has one for each of the dataset."""
        return (
            self.stage.kind is StageKind.MERGE
            and self.stage.files_per_job != 1
            and self.names.stages[str(source.stage)].descent == ROOT
        )


def _normal(name: Any) -> str:
    return os.path.normpath(str(name))


def _inputs(expression: Expression) -> list[str]:
    """The inputs that an expression gives as they are: one, or a list of them."""
    if not expression.is_sole:
        return []
    (part,) = scan(str(expression.text).strip())
    body = _RETURN.fullmatch(part.text)
    code = (body[1] if body else part.text[1:-1]).strip()
    if _LIST.fullmatch(code) is None or ("," in code and not (code[0] == "[" and code[-1] == "]")):
        return []
    references = (parse_reference(f"({one})") for one in re.findall(_REFERENCE, code))
    return [str(one.segments[0]) for one in references if one is not None]
