"""How fast a server is fed with events."""

from dataclasses import dataclass, field
from datetime import datetime

SMALLEST_WINDOW = 100
LONGEST_GRACE_S = 300.0


@dataclass
class Pace:
    """How fast a server is fed: never more than `window` posts that aren't read back.

    The window halves when posts got lost, and grows again while they arrive. A post counts as
    lost `grace_s` after it, longer with each try.
    """

    most: int
    batch: int
    grace_s: float = 15.0
    running_after_s: float = 2.0
    fresh_s: float = 1.0
    """Posts are not asked for before that: the server writes about once a second."""
    window: int = field(default=0)
    later: dict[int, datetime] = field(default_factory=dict)
    """Attempts that the server shows in another state of a later time: that time."""

    def __post_init__(self) -> None:
        self.window = self.most

    def lost(self) -> None:
        """Posts got lost."""
        self.window = max(min(SMALLEST_WINDOW, self.most), self.window // 2)

    def arrived(self) -> None:
        """A batch was read back whole."""
        self.window = min(self.most, self.window + self.batch)

    def grace(self, tries: int) -> float:
        """How long the post of that try may take to appear, in seconds."""
        return min(self.grace_s * 2.0 ** (tries - 1), LONGEST_GRACE_S)
