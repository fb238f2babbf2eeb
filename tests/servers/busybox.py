"""A small image for payloads, made of Debian's busybox."""

import io
import shutil
import subprocess
import tarfile

from catalog.errors import Unavailable
from tests.servers.dockerd import Dockerd
from tests.servers.install import need
from tests.servers.podman import Podman

PACKAGE = "busybox-static"
IMAGE = "spdf-test-busybox:1"


def import_busybox(daemon: Dockerd | Podman) -> str:
    """An image with busybox and nothing else; gives its name."""
    need(_busybox, PACKAGE)
    rootfs = daemon.directory / "busybox.tar"
    applets = subprocess.run([_busybox(), "--list"], capture_output=True, text=True, check=True)
    with tarfile.open(rootfs, "w") as tar:
        tar.add(_busybox(), "bin/busybox")
        for applet in applets.stdout.split():
            if applet != "busybox":
                _add(tar, f"bin/{applet}", tarfile.SYMTYPE, "busybox")
        _add(tar, "tmp", tarfile.DIRTYPE)
    daemon.run("import", str(rootfs), IMAGE)
    rootfs.unlink()
    return IMAGE


def _add(tar: tarfile.TarFile, name: str, kind: bytes, target: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = kind, target, 0o1777
    tar.addfile(entry, io.BytesIO())


def _busybox() -> str:
    found = shutil.which("busybox")
    if found is None:
        raise Unavailable(f"the tests' small image needs busybox; install {PACKAGE}.")
    return found
