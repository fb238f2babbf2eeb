"""Telling a Prefect server that is away from one that refuses one item."""

import httpx

from catalog.outage import is_outage

_TOO_MANY = 429


def is_server_away(error: BaseException) -> bool:
    """Whether any other item would meet the error, too: the server's, the catalog's, the machine's.

    What the server refuses (404, 409, 422 …) is the fault of what was asked for.
    """
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status >= httpx.codes.INTERNAL_SERVER_ERROR or status == _TOO_MANY
    return isinstance(error, httpx.TransportError) or is_outage(error)
