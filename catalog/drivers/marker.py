"""The marker of a storage: a file at its root that says which storage it is, and whose.

Format 1 is JSON: the format's number, the storage's id, and a list of claims. A claim says that a
catalog reads the storage, or also removes what lies there, and has a beat, which only grows.
"""

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from catalog.refs import May as May

FORMAT = 1
MOST_BYTES = 1 << 20
_ABOUT = "tells spdf which storage this is: leave it here"


@dataclass(frozen=True)
class Claim:
    """What one instance of a catalog does with a storage; `beat` tells an older one of itself."""

    catalog: str
    instance: str
    may: May
    beat: int = 0


@dataclass(frozen=True)
class Marker:
    """Which storage it is, and the claims on it; `rest` is what later formats have beside that."""

    storage: str
    claims: tuple[Mapping[str, Any], ...] = ()
    format: int = FORMAT
    rest: Mapping[str, Any] | None = None

    def to_bytes(self) -> bytes:
        """As it is written."""
        whole = {
            "about": _ABOUT,
            **(self.rest or {}),
            "format": self.format,
            "storage": self.storage,
            "claims": [dict(claim) for claim in self.claims],
        }
        return (json.dumps(whole, indent=2) + "\n").encode()

    def is_claimed_by(self, claim: Claim) -> bool:
        """Whether that instance of that catalog has a claim."""
        return any(whose(found) == (claim.catalog, claim.instance) for found in self.claims)

    def with_claim(self, claim: Claim) -> "Marker":
        """The marker with one claim more; only one of them may remove."""
        may = claim.may
        if any(found.get("may") == May.REMOVES for found in self.claims):
            may = May.READS
        return self.with_claims((*self.claims, as_written(replace(claim, may=may))))

    def with_claims(self, claims: Iterable[Mapping[str, Any]]) -> "Marker":
        """The marker with these claims, and no others."""
        return replace(self, claims=tuple(claims))

    def with_beat(self, key: tuple[str, str], beat: int) -> "Marker":
        """The marker with that beat in the claim of that instance of a catalog."""
        return self.with_claims(
            {**claim, "beat": beat} if whose(claim) == key else claim for claim in self.claims
        )


def as_written(claim: Claim) -> Mapping[str, Any]:
    """A claim as it stands in a marker."""
    return {
        "catalog": claim.catalog, "instance": claim.instance, "may": claim.may, "beat": claim.beat,
    }  # fmt: skip


def beat_of(claim: Mapping[str, Any]) -> int:
    """The beat of a claim; of one that has none that can be read it is 0."""
    found = claim.get("beat")
    return found if type(found) is int else 0


def new_id() -> str:
    """An id that no other storage has."""
    return secrets.token_hex(16)


def read(text: bytes) -> Marker:
    """The marker that was written; raises `ValueError` for what is none."""
    try:
        found = json.loads(text)
        storage, number, claims = found["storage"], found["format"], found.get("claims", [])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("it can't be read as a marker") from error
    if not isinstance(storage, str) or not storage or type(number) is not int or number < 1:
        raise ValueError("it names no storage")
    if not isinstance(claims, list) or not all(isinstance(claim, dict) for claim in claims):
        raise ValueError("its claims are no list of claims")
    known = {"storage", "format", "claims", "about"}
    rest = {name: value for name, value in found.items() if name not in known}
    return Marker(storage, tuple(claims), number, rest)


def whose(claim: Mapping[str, Any]) -> tuple[object, object]:
    """The catalog of a claim, and its instance."""
    return claim.get("catalog"), claim.get("instance")
