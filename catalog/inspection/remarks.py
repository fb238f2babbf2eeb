"""What an inspection has to say beside its findings: what it could not look at, and why."""

import threading
from dataclasses import dataclass, field

from catalog.counts import count_of
from catalog.errors import StorageError
from catalog.names import MARKER, spelt_out

_SHOWN = 5
_MOST_WORDS = 300


@dataclass
class Remarks:
    """Gathered by several threads; bounded, whatever the storage is like."""

    odd: int = 0
    """Files whose names no row can have."""
    first_odd: str = ""
    unread: int = 0
    """Folders and files that could not be looked at."""
    unread_shown: dict[str, str] = field(default_factory=dict)
    unproven: int = 0
    """Rows without bytes on a storage that has no marker: nobody knows whether it is all there."""
    shared: int = 0
    """Files of other storages, whose places are inside of this one."""
    told: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note_odd(self, path: str) -> None:
        """A file has a name that can't be used."""
        self.odd += 1
        self.first_odd = self.first_odd or path

    def note_unread(self, path: str, why: StorageError) -> None:
        """A folder or a file could not be looked at."""
        with self._lock:
            self.unread += 1
            if len(self.unread_shown) < _SHOWN:
                self.unread_shown[path] = str(why)[:_MOST_WORDS]

    def note_unproven(self) -> None:
        """Bytes aren't there, on a storage that may not be all there."""
        with self._lock:
            self.unproven += 1

    @property
    def words(self) -> str | None:
        """All of it in sentences; None where there is nothing to say."""
        said = list(self.told)
        if self.unread:
            more = self.unread - len(self.unread_shown)
            named = "; ".join(f"{path!a} ({why})" for path, why in self.unread_shown.items())
            said.append(
                f"{self.unread} of its folders and files could not be looked at: {named}"
                + (f", and {more} more" if more else "")
            )
        if self.unproven:
            said.append(
                f"{count_of(self.unproven, 'row')} without bytes there, not called missing, since "
                f"the storage has no marker {MARKER}; see `spdf storage list`"
            )
        if self.shared:
            said.append(f"another storage's: {count_of(self.shared, 'file')} without a row here")
        if self.odd:
            said.append(
                f"{count_of(self.odd, 'file')} with a name that can't be used, such as "
                f"{spelt_out(ascii(self.first_odd))}; rename or remove by hand"
            )
        return ". ".join(said) or None
