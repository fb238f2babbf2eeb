"""What a job of a tool reserves: CWL v1.2 ResourceRequirement."""

import math
from collections.abc import Mapping
from typing import Any

from workers.cwl.expressions import Expression, Scope
from workers.cwl.inputs import prepare_inputs
from workers.cwl.numbers import is_double
from workers.cwl.tool import Tool
from workers.spec import Resources


def resources(tool: Tool, inputs: Mapping[str, Any]) -> Resources:
    """The least that a job with these inputs (a CWL job object) needs.

    Raises `ToolFailure` where an expression fails or an input doesn't fit.
    """
    if all(one.constant for _, one in tool.resources) and (
        tool.cuda_devices is None or tool.cuda_devices.constant
    ):
        return evaluate_resources(tool, Scope({}))
    return evaluate_resources(tool, Scope(prepare_inputs(tool, inputs, None)))


def evaluate_resources(tool: Tool, scope: Scope) -> Resources:
    """As `resources`, of inputs that are prepared already."""
    given = dict(tool.resources)
    standard = Resources()
    return Resources(
        cores=_least(given, "cores", standard.cores, scope),
        ram_mib=math.ceil(_least(given, "ram", standard.ram_mib, scope)),
        devices=0 if tool.cuda_devices is None else int(_number(tool.cuda_devices, scope)),
        tmpdir_mib=math.ceil(_least(given, "tmpdir", standard.tmpdir_mib, scope)),
        outdir_mib=math.ceil(_least(given, "outdir", standard.outdir_mib, scope)),
    )


def _least(given: Mapping[str, Expression], name: str, standard: float, scope: Scope) -> float:
    low, high = given.get(f"{name}Min"), given.get(f"{name}Max")
    if low is None:
        return standard if high is None else min(standard, _number(high, scope))
    least = _number(low, scope)
    if high is not None and _number(high, scope) < least:
        raise high.fault(f"{name}Max is less than {name}Min ({least:g})")
    return least


def _number(expression: Expression, scope: Scope) -> float:
    value = expression.within(scope)
    if not is_double(value) or value < 0:
        raise expression.fault(f"a resource is a number, 0 or more, not {value!r}")
    return float(value)
