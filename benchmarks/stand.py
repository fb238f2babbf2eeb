"""A profile of a benchmark's own: started in a directory of its own, and removed again."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

EMBEDDED, SITE = "embedded", "site"
PROFILES = (EMBEDDED, SITE)


@dataclass(frozen=True)
class Stand:
    """A running profile: `folder` is scratch space on the same file system as its storages."""

    folder: Path
    profile: str

    def services(self) -> dict[str, int]:
        """Pid of each running service by name."""
        from catalog.settings import get_settings
        from flows import services

        running = services.status(get_settings()).services
        return {service.name: service.pid for service in running if service.pid is not None}


@contextmanager
def scratch(prefix: str = "spdf-bench-") -> Iterator[Path]:
    """A new directory, in $SPDF_BENCH_DIR where that is set; gone afterwards."""
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=os.environ.get("SPDF_BENCH_DIR") or None
    ) as text:
        yield Path(text)


@contextmanager
def stand(
    folder: Path, profile: str = EMBEDDED, *, s3: bool = False, extra: Mapping[str, str] = {}
) -> Iterator[Stand]:
    """Start a profile in `folder` and stop it at the end.

    `site` is PostgreSQL for the catalog and the Prefect server, with storages that are directories
    (or an S3 server of its own). `extra` are further settings, `SPDF_*`.
    """
    home = folder / "home"
    os.environ["SPDF_HOME"] = str(home)
    os.environ.update(extra)
    from catalog.settings import get_settings
    from flows import services
    from flows.site.layout import lay_down_local

    if profile == SITE:
        lay_down_local(home, s3=s3)
    get_settings.cache_clear()
    settings = get_settings()
    try:
        services.up(settings)
        services.configure_client(settings)
        yield Stand(folder, profile)
    finally:
        services.down(settings)
        get_settings.cache_clear()
