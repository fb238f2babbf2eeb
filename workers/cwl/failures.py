"""How a tool's run ends without success."""

from catalog.errors import ErrorCode, SpdfError


class ToolFailure(SpdfError):
    """A tool gave no valid outputs. `exit_code` is the payload's, where it ran to an end."""

    exit_code: int | None  # type: ignore[assignment,misc]

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        exit_code: int | None = None,
        cpu_s: float = 0.0,
        peak_rss_bytes: int = 0,
    ) -> None:
        self.code, self.message, self.exit_code = code, message, exit_code
        self.cpu_s, self.peak_rss_bytes = cpu_s, peak_rss_bytes
        super().__init__(message)


class Unsupported(ToolFailure):
    """The tool asks for something that this node hasn't (a container engine)."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.CONTAINER_ENGINE_MISSING, message)


class NotEnded(ToolFailure):
    """A payload may still write to its directories: it has processes that can't be ended."""

    def __init__(
        self, code: ErrorCode, message: str, cpu_s: float = 0.0, peak_rss_bytes: int = 0
    ) -> None:
        super().__init__(code, message, cpu_s=cpu_s, peak_rss_bytes=peak_rss_bytes)


class ToolStopped(SpdfError):
    """The payload was killed because its caller said so."""

    def __init__(self, cpu_s: float = 0.0, peak_rss_bytes: int = 0) -> None:
        self.cpu_s, self.peak_rss_bytes = cpu_s, peak_rss_bytes
        super().__init__("the payload was stopped and its processes killed")


class ExpressionError(ToolFailure):
    """An expression could not be evaluated, or gave what can't stand in its place.

    The message names it and its place.
    """

    def __init__(self, text: str, reason: str, place: str = "") -> None:
        self.text, self.reason, self.place = text, reason, place
        shown = text if len(text) <= 200 else f"{text[:197]}..."
        where = f" ({place})" if place else ""
        super().__init__(
            ErrorCode.EXPRESSION_FAILED, f"expression {shown!r}{where} failed: {reason}"
        )


def no_engine(why: str) -> Unsupported:
    """The failure of a tool that requires a container where there can be none."""
    return Unsupported(
        f"the tool requires a container (DockerRequirement), and {why}; set SPDF_CONTAINER_ENGINE "
        "on the node to docker or podman, whichever is installed there"
    )


def bad_input(message: str) -> ToolFailure:
    """The failure of a value that doesn't fit its input."""
    return ToolFailure(ErrorCode.BAD_JOB_INPUT, message)


def bad_output(message: str) -> ToolFailure:
    """The failure of an output that doesn't fit its declaration."""
    return ToolFailure(ErrorCode.OUTPUT_INVALID, message)
