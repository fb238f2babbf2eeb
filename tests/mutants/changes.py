"""The changes: what mutmut changes in functions, here in the tables of modules, too.

Elements of collections are left out, too. Annotations, docstrings, and the words of errors and log
lines stay.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """One change: where, and what it makes of the code there."""

    path: str
    lines: range
    """Those of its statement."""
    span: tuple[int, int]
    """Its bytes in the file."""
    after: str

    def text(self) -> str:
        """The whole module with the change."""
        source = (ROOT / self.path).read_bytes()
        start, end = self.span
        return (source[:start] + self.after.encode() + source[end:]).decode()

    @property
    def line(self) -> int:
        """Where it begins."""
        return (ROOT / self.path).read_bytes().count(b"\n", 0, self.span[0]) + 1

    def __str__(self) -> str:
        """One line that tells it from others."""
        before = (ROOT / self.path).read_bytes()[slice(*self.span)].decode()
        return f"{self.path}:{self.line}: `{_short(before)}` -> `{_short(self.after)}`"

    def is_code(self) -> bool:
        """Whether it can be compiled at all."""
        try:
            compile(self.text(), self.path, "exec")
        except (SyntaxError, ValueError):
            return False
        return True


def _short(code: str) -> str:
    words = " ".join(code.split())
    return words if len(words) <= 160 else f"{words[:80]} ... {words[-75:]}"


def mutants_of(path: str) -> Iterator[Mutant]:
    """All mutants of a module that differ, in order."""
    wrapper = MetadataWrapper(cst.parse_module((ROOT / path).read_text("utf-8")))
    finder = _Finder()
    wrapper.visit(finder)
    spans = wrapper.resolve(ByteSpanPositionProvider)
    seen: set[Mutant] = set()
    for node, made, lines in finder.found:
        span = spans[node]
        code = wrapper.module.code_for_node(made).strip()
        mutant = Mutant(path, lines, (span.start, span.start + span.length), code)
        if mutant not in seen and code != wrapper.module.code_for_node(node).strip():
            seen.add(mutant)
            yield mutant


class _Finder(cst.CSTVisitor):
    """Finds what can be changed in a module, in order: what, by what, and its statement's lines."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        self.found: list[tuple[cst.CSTNode, cst.CSTNode, range]] = []
        self._lines = range(1, 2)

    def visit_Annotation(self, node: cst.Annotation) -> bool:
        return False

    def visit_Import(self, node: cst.Import) -> bool:
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False

    def visit_Decorator(self, node: cst.Decorator) -> bool:
        return False

    def visit_Raise(self, node: cst.Raise) -> bool:
        return False

    def visit_SimpleStatementLine(self, node: cst.SimpleStatementLine) -> bool:
        only = node.body[0]
        return not (
            isinstance(only, cst.Expr)
            and isinstance(only.value, cst.SimpleString | cst.ConcatenatedString)
        )

    def visit_Call(self, node: cst.Call) -> bool:
        return not cst.Module([]).code_for_node(node.func).startswith("log.")

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Changes of a node, unless it or what it is in is passed over."""
        deeper = super().on_visit(node)
        if isinstance(node, cst.BaseStatement | cst.SimpleStatementLine | cst.ExceptHandler):
            place, body = self.get_metadata(PositionProvider, node), getattr(node, "body", None)
            last = place.end.line
            if isinstance(body, cst.IndentedBlock):
                last = self.get_metadata(PositionProvider, body.body[0]).start.line - 1
            self._lines = range(place.start.line, max(last, place.start.line) + 1)
        if deeper:
            for kind, operator in mutation_operators:
                if isinstance(node, kind):
                    self.found += [(node, made, self._lines) for made in operator(node)]
            self.found += [(node, made, self._lines) for made in _fewer(node)]
        return deeper


def _fewer(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """A collection without one of its elements."""
    if isinstance(node, cst.Set | cst.Dict | cst.Tuple | cst.List) and len(node.elements) > 1:
        for place in range(len(node.elements)):
            yield node.with_changes(elements=[*node.elements[:place], *node.elements[place + 1 :]])
