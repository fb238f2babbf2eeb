"""Merge files of selected events into one, in the order given.

Exit codes: 0 done, 2 bad arguments, 66 an input can't be used,
74 the output can't be written.
"""

import argparse
from pathlib import Path

import numpy as np
import spdio


def main() -> int:
    """Read all files, write one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="*", help="files of select_events.py")
    parser.add_argument("--output", type=Path, required=True, help="merged file to write")
    arguments = parser.parse_args()
    slices = [np.empty(0, spdio.SLICE)]
    parts = []
    for path in arguments.files:
        rows, *tables = spdio.read_tables(path, "slices", "events", "tracks", "words")
        slices.append(rows)
        parts.append(spdio.take_events(*tables))
    merged = spdio.join_events(parts)
    spdio.write_tables(arguments.output, slices=np.concatenate(slices), **merged)
    print(f"{len(parts)} files: {len(merged['events'])} events")
    return 0


if __name__ == "__main__":
    spdio.run(main)
