"""The Prefect server as the embedded profile runs it: `python -m flows.services.webserver`.

The same application as `prefect server start` serves, with two things added.

The server's own web page asks a statistics service for its configuration even where statistics
are off: a header keeps the browser from talking to anybody but this server.

On SQLite the server begins its transactions DEFERRED. One that has read, and finds at its first
write that another has written since, fails at once with "database is locked", and a flow run whose
state was to be written is aborted. Begun IMMEDIATE they wait for each other.
"""

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings
from sqlalchemy import event
from sqlalchemy.engine import Engine

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def keep_to(app: App, port: int) -> App:
    """The application, with answers that let a browser connect to this server alone."""
    places = [f"{kind}://{host}:{port}" for kind in ("http", "ws")
              for host in ("127.0.0.1", "localhost")]  # fmt: skip
    policy = f"connect-src 'self' {' '.join(places)}; form-action 'self'".encode()

    async def guarded(scope: Message, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"content-security-policy", policy)]
                message = {**message, "headers": headers}
            await send(message)

        await app(scope, receive, answer)

    return guarded


def begin_immediate() -> None:
    """Make every SQLite transaction of this process take the write lock when it begins."""

    @event.listens_for(Engine, "before_cursor_execute", retval=True)
    def _begin(
        _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> tuple[str, Any]:
        return ("BEGIN IMMEDIATE" if statement == "BEGIN DEFERRED" else statement), parameters


def main() -> int:
    """Serve until SIGTERM, as the settings of the environment say."""
    begin_immediate()
    server = get_current_settings().server
    app: Any = create_app(final=True)
    uvicorn.run(
        keep_to(app, server.api.port),
        host=server.api.host,
        port=server.api.port,
        timeout_keep_alive=server.api.keepalive_timeout,
        ws_ping_interval=server.api.websocket_ping_interval,
        ws_ping_timeout=server.api.websocket_ping_timeout,
        log_level=str(server.logging_level).lower(),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
