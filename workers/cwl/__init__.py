"""The CWL v1.2 tool engine: compile a tool once, run it for every job."""

from workers.cwl.engine import run_tool
from workers.cwl.expressions import Expression, compile_expression
from workers.cwl.failures import ToolFailure, ToolStopped
from workers.cwl.resources import resources
from workers.cwl.tool import Tool, load_tool

__all__ = [
    "Expression",
    "Tool",
    "ToolFailure",
    "ToolStopped",
    "compile_expression",
    "load_tool",
    "resources",
    "run_tool",
]
