"""Paths of the settings, as they are for this process and for all that it starts elsewhere."""

import os

from catalog.places import given_path

_PATHS = ("SPDF_HOME", "SPDF_SPOOL", "SPDF_WORK_DIR")


def pin_paths() -> None:
    """Make those in the environment absolute: services work in other folders than this one."""
    for name in _PATHS:
        if given := os.environ.get(name):
            os.environ[name] = str(given_path(given))
