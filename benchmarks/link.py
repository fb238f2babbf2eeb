"""A link of a set rate to a server of this machine, by Linux's `tc`.

A server and its client share the cores here, so what one measures between them is the CPU of both;
a site's server is behind a network.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_ROOT = "qdisc add dev lo root handle 1: htb default 10"
_SHAPE = (
    "class add dev lo parent 1: classid 1:10 htb rate 100gbit quantum 60000 burst 64mb",
    "class add dev lo parent 1: classid 1:20 htb rate {mbit}mbit quantum 60000 burst 8mb",
    "filter add dev lo parent 1: protocol ip u32 match ip dport {port} 0xffff flowid 1:20",
    "filter add dev lo parent 1: protocol ip u32 match ip sport {port} 0xffff flowid 1:20",
)


@contextmanager
def link(port: int, mbit: int | None) -> Iterator[None]:
    """Meanwhile what goes to and from a port is so many Mbit/s together; None: no change.

    Ends the program where that can't be had, or where the loopback device has a queue already.
    """
    if mbit is None:
        yield
        return
    _tc(_ROOT)
    try:
        for line in _SHAPE:
            _tc(line.format(mbit=mbit, port=port))
        yield
    finally:
        # What it has to say goes to the standard error: an error in between matters more.
        subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=False)


def _tc(line: str) -> None:
    try:
        done = subprocess.run(["tc", *line.split()], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("--mbit: there is no `tc` to set a link's rate with; install iproute2.")
    if done.returncode:
        sys.exit(
            f"--mbit: `tc {line}` says {done.stderr.strip()!r}; it takes root, and a device "
            "`lo` without a queue of its own: `tc qdisc del dev lo root` removes one."
        )
