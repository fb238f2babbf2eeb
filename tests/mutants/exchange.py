"""A mutant in place of what a process has imported: that takes no time, unlike importing."""

import ast
import gc
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from tests.mutants.changes import ROOT, Mutant

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def in_function(mutant: Mutant) -> bool:
    """Whether it changes what is run when a function is, not when its module is imported."""
    tree = ast.parse((ROOT / mutant.path).read_text("utf-8"))
    return any(
        not isinstance(one, ast.ClassDef) and mutant.line >= one.body[0].lineno
        for one in _around(tree, mutant.line)
    )


class Exchange:
    """Exchanges code in this process. `folder` is where its modules were imported from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._functions: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
        for one in gc.get_objects():
            if type(one) is FunctionType and one.__code__.co_filename.startswith(str(folder)):
                code = one.__code__
                key = (code.co_filename, code.co_qualname, code.co_firstlineno)
                self._functions[key].append(one)

    def put_in(self, mutant: Mutant) -> bool:
        """Exchange what a mutant changes; whether that can be done here.

        Functions are the same ones with other code, whoever imported them. What stands in a class,
        or in the head of a function, can't be exchanged.
        """
        source = (ROOT / mutant.path).read_text("utf-8")
        outer = list(_around(ast.parse(source), mutant.line))
        if not outer:
            return self._tables(mutant)
        function = next((one for one in outer if not isinstance(one, ast.ClassDef)), None)
        if function is None or mutant.line < function.body[0].lineno:
            return False
        name = ".".join(one.name for one in outer[: outer.index(function) + 1])
        file = str(self._folder / mutant.path)
        module = compile(mutant.text(), file, "exec")
        first = min([function.lineno, *(one.lineno for one in function.decorator_list)])
        found = self._functions.get((file, name, first), [])
        codes = [
            code
            for code in _codes(module)
            if (code.co_qualname, code.co_firstlineno) == (name, first)
        ]
        if not found or len(codes) != 1:
            return False
        for one in found:
            if len(one.__code__.co_freevars) != len(codes[0].co_freevars):
                return False
            one.__code__ = codes[0]
        return True

    def _tables(self, mutant: Mutant) -> bool:
        """Make the tables of a module anew, from the one that is changed on."""
        module = import_module(mutant.path.removesuffix(".py").replace("/", "."))
        tree = ast.parse(mutant.text())
        kept = (*_Definition.__args__, ast.Import, ast.ImportFrom)
        tree.body = [
            one
            for one in tree.body
            if not isinstance(one, kept) and (one.end_lineno or 0) >= mutant.line
        ]
        before = dict(vars(module))
        made = dict(before)
        exec(compile(tree, str(module.__file__), "exec"), made)  # noqa: S102
        for name, value in made.items():
            if name in before and value is not before[name]:
                _rebind(name, before[name], value)
        return True


def _rebind(name: str, old: object, new: object) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        old.clear()
        old.update(new)
        return
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and vars(module).get(name) is old:
            setattr(module, name, new)


def _around(tree: ast.AST, line: int) -> Iterator[_Definition]:
    """The definitions around a line, from the outermost."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt):
            heads = [one.lineno for one in getattr(node, "decorator_list", ())]
            if min([node.lineno, *heads]) <= line <= (node.end_lineno or node.lineno):
                if isinstance(node, _Definition):
                    yield node
                yield from _around(node, line)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from _codes(one)
