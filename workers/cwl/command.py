"""The command line of a tool: CWL v1.2 CommandLineTool, section Input binding."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.cwl.expressions import Scope
from workers.cwl.failures import bad_input
from workers.cwl.numbers import json_text, number_text
from workers.cwl.parameters import BARE_BINDING, Binding, Type, is_file_object
from workers.cwl.tool import Tool

Key = tuple[int | str, ...]
_SHELL = "/bin/sh"


@dataclass(frozen=True)
class _Bound:
    """A binding with its value and its sorting key. `value` is `self` of its `valueFrom`."""

    key: Key
    binding: Binding
    value: Any


def command_line(tool: Tool, scope: Scope) -> list[str]:
    """The arguments of a job, the program first. Raises `ToolFailure`.

    They may be none where an image brings a command.
    """
    found = [
        _Bound((_position(one, scope, None), index), one, None)
        for index, one in enumerate(tool.arguments)
    ]
    for declared in tool.bound:
        value = scope.inputs[declared.name]
        found += _bind(declared.type, declared.binding, value, (), (declared.name,), scope)
    found.sort(key=lambda one: _order(one.key))
    if tool.shell:
        parts = [shlex.quote(one) for one in tool.base_command]
        for one in found:
            texts = _arguments(one, scope)
            parts += [shlex.quote(text) for text in texts] if one.binding.shell_quote else texts
        return [_SHELL, "-c", " ".join(parts)]
    command = list(tool.base_command)
    for one in found:
        command += _arguments(one, scope)
    if not command and tool.container is None:
        raise bad_input(f"tool {tool.name!r} has an empty command line")
    return command


def _order(key: Key) -> tuple[tuple[int, int | str], ...]:
    """Numbers sort before strings."""
    return tuple((1, part) if isinstance(part, str) else (0, part) for part in key)


def _position(binding: Binding, scope: Scope, value: Any) -> int:
    position = binding.position
    found = position.text if position.constant else position.within(scope, value)
    if found is None:
        return 0
    if not isinstance(found, int) or isinstance(found, bool):
        raise position.fault(f"a position must be an integer, not {found!r}")
    return found


def _bind(
    kind: Type, binding: Binding | None, value: Any, lead: Key, tail: Key, scope: Scope
) -> list[_Bound]:
    """What a value adds, with what is nested in it: its own binding's key leads theirs."""
    if value is None:
        return []
    kind = kind.member(value)
    inner: list[_Bound] = []
    if binding is None or binding.value_from is None:
        inner = _bind_inside(kind, binding, value, lead, tail, scope)
    if binding is None:
        return inner
    key = (*lead, _position(binding, scope, value), *tail)
    nested = [_Bound((*key, *one.key), one.binding, one.value) for one in inner]
    return [_Bound(key, binding, value), *nested]


def _bind_inside(
    kind: Type, outer: Binding | None, value: Any, lead: Key, tail: Key, scope: Scope
) -> list[_Bound]:
    if kind.kind == "Any" and isinstance(value, list):
        kind = Type("array", items=kind)
    if kind.kind == "array" and kind.items is not None:
        each = kind.binding
        if each is None and outer is not None and outer.item_separator is None:
            each = BARE_BINDING
        found: list[_Bound] = []
        for index, item in enumerate(value):
            if each is None:
                found += _bind(kind.items, None, item, (*lead, index), tail, scope)
            else:
                found += _bind(kind.items, each, item, lead, (index, *tail), scope)
        return found
    fields = [
        one
        for field in kind.fields
        for one in _bind(
            field.type, field.binding, value.get(field.name), lead, (field.name,), scope
        )
    ]
    if kind.binding is None:
        return fields
    key = (*lead, _position(kind.binding, scope, value), *tail)
    nested = [_Bound((*key, *one.key), one.binding, one.value) for one in fields]
    return [_Bound(key, kind.binding, value), *nested]


def _arguments(bound: _Bound, scope: Scope) -> list[str]:
    """The arguments that one binding gives."""
    binding, value = bound.binding, bound.value
    if binding.value_from is not None:
        value = binding.value_from.within(scope, value)
    prefix = [] if binding.prefix is None else [binding.prefix]
    if value is None or value is False:
        return []
    if value is True:
        return prefix
    if isinstance(value, list | tuple):
        if not value:
            return []
        if binding.item_separator is None:
            if binding.value_from is None:
                return prefix
            return prefix + [text_of(one) for one in value if one is not None]
        value = binding.item_separator.join(text_of(one) for one in value)
    elif isinstance(value, Mapping) and not is_file_object(value):
        return prefix
    text = text_of(value)
    if binding.separate:
        return [*prefix, text]
    return [f"{binding.prefix or ''}{text}"]


def text_of(value: Any) -> str:
    """A value as an argument: a File's path, numbers in plain decimal notation."""
    if isinstance(value, str):
        return value
    if is_file_object(value):
        return str(value["path"])
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number_text(value)
    return json_text(value)
