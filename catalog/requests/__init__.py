"""Requests: what is to be done to data, accepted durably, done in order, and answered.

`kinds` says what may be asked for, `queue` holds the rows, `processor` does what they say.
"""

from catalog.refs import RequestKind as Kind
from catalog.requests.kinds import KINDS, RequestDocument, parse, schema_of
from catalog.requests.queue import (
    RequestInfo,
    by_key,
    get,
    list_requests,
    retry,
    submit,
    submit_requests,
)

__all__ = [
    "KINDS",
    "Kind",
    "RequestDocument",
    "RequestInfo",
    "by_key",
    "get",
    "list_requests",
    "parse",
    "retry",
    "schema_of",
    "submit",
    "submit_requests",
]
