"""A private S3 server on this machine: Ceph's object gateway, from Debian's packages.

One monitor, one BlueStore OSD on a sparse file and one gateway, all on loopback. It keeps what it
acknowledged when it is killed, checks logins, and answers conditional writes.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from catalog.errors import Unavailable

HOST = "127.0.0.1"
PACKAGES = ("radosgw", "ceph-mon", "ceph-osd")
DISK_BYTES = 64 * 2**30
"""Size of the sparse file that the bytes go to; it takes as much as is stored."""
_USER = "spdf"
_POOL_SETTINGS = """\
osd pool default size = 1
osd pool default min size = 1
mon warn on pool no redundancy = false
mon allow pool size one = true
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
"""


@dataclass(frozen=True)
class ObjectStore:
    """The server's data and its address; the login is made at the first start."""

    directory: Path
    port: int
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    @property
    def _config(self) -> Path:
        return self.directory / "ceph.conf"

    def prepare(self) -> None:
        """Lay the cluster's data down where there are none; raises `Unavailable` without Ceph."""
        for name in ("ceph-mon", "ceph-osd", "radosgw", "monmaptool", "ceph-authtool"):
            program(name)
        if (self.directory / "ready").exists():
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        for name in ("mon", "osd", "run"):
            (self.directory / name).mkdir(mode=0o700, parents=True)
        monitor, cluster = _free_port(), str(uuid.uuid4())
        self._config.write_text(self._settings(monitor, cluster))
        self._make_keys()
        self._make_monitor(monitor, cluster)
        with (self.directory / "osd" / "block").open("wb") as disk:
            disk.truncate(DISK_BYTES)
        (self.directory / "osd-uuid").write_text(str(uuid.uuid4()))
        (self.directory / "ready").touch()

    def commands(self) -> dict[str, list[str]]:
        """The three servers in the foreground, by name, in the order of their start.

        The OSD's and the gateway's wait for the monitor, so that they may be started together.
        """
        common = ["--conf", str(self._config), "--foreground"]
        script = f"exec {program('ceph-osd')} -i 0 --conf '{self._config}' --foreground"
        first = self.directory / "osd" / "ready"
        made = f"test -e '{first}' || {{ {self._register_osd()} && touch '{first}'; }} && {script}"
        gateway = [str(program("radosgw")), "--name", "client.rgw", *common]
        return {
            "mon": [str(program("ceph-mon")), "-i", "a", *common],
            "osd": ["/bin/sh", "-c", made],
            "rgw": gateway,
        }

    def wait_ready(self, limit_s: float = 90.0) -> None:
        """Wait until it answers, and have its user; raises `Unavailable` after `limit_s`."""
        until = time.monotonic() + limit_s
        while not self._answers():
            if time.monotonic() > until:
                raise Unavailable(
                    f"the S3 server on port {self.port} was not ready after {limit_s:.0f} s; "
                    f"see the logs in {self.directory}."
                )
            time.sleep(0.2)
        self._ensure_user()

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            opener.open(self.url, timeout=3).close()
        except urllib.error.HTTPError as answer:
            answer.close()
            return True
        except OSError:
            return False
        return True

    @property
    def admin(self) -> list[str]:
        """The beginning of an operator's command line for the server."""
        return ["radosgw-admin", "--conf", str(self._config), "--name", "client.rgw"]

    def _ensure_user(self) -> None:
        admin = self.admin
        found = subprocess.run(
            [*admin, "user", "info", "--uid", _USER], capture_output=True, text=True, check=False
        )
        if found.returncode == 0:
            keys = json.loads(found.stdout)["keys"]
            if any(k["access_key"] == self.access_key for k in keys):
                return
        _run([
            *admin, "user", "create" if found.returncode else "modify", "--uid", _USER,
            "--display-name", _USER, "--access-key", self.access_key,
            "--secret-key", self.secret_key,
        ])  # fmt: skip

    def _settings(self, monitor: int, cluster: str) -> str:
        here = self.directory
        frontend = f"beast endpoint={HOST}:{self.port} tcp_nodelay=1"
        return (
            f"[global]\nfsid = {cluster}\nmon host = v2:{HOST}:{monitor}\n"
            f"public addr = {HOST}\ncluster addr = {HOST}\n"
            f"ms bind msgr1 = false\nauth client required = cephx\n"
            f"keyring = {here}/keyring\nrun dir = {here}/run\n"
            f"admin socket = {here}/run/$name.asok\npid file =\n"
            f"log file = {here}/$name.log\nmon cluster log file = {here}/cluster.log\n"
            f"crash dir = {here}/crash\n{_POOL_SETTINGS}"
            f"[mon.a]\nmon data = {here}/mon\nmon data avail crit = 1\n"
            f"[osd.0]\nosd data = {here}/osd\nosd objectstore = bluestore\n"
            f"bluestore block size = {DISK_BYTES}\nosd memory target = 1073741824\n"
            # A gateway that was killed is waited for that long before the next one may write.
            f"osd client watch timeout = 3\n"
            f"[client.rgw]\nrgw frontends = {frontend}\nrgw data = {here}/run\n"
            f"rgw dns name =\nrgw enable usage log = false\nrgw enable ops log = false\n"
        )

    def _make_keys(self) -> None:
        tool, ring = "ceph-authtool", str(self.directory / "keyring")
        everything = ["--cap", "mon", "allow *"]
        _run([tool, ring, "--create-keyring", "--gen-key", "-n", "mon.", *everything])
        osd = ["--cap", "osd", "allow *"]
        _run([tool, ring, "--gen-key", "-n", "client.admin", *everything, *osd])
        _run([tool, ring, "--gen-key", "-n", "client.rgw", *everything, *osd])
        _run([tool, ring, "--gen-key", "-n", "osd.0", *everything, *osd])
        Path(ring).chmod(0o600)

    def _make_monitor(self, port: int, cluster: str) -> None:
        map_file = str(self.directory / "monmap")
        address = f"[v2:{HOST}:{port}]"
        _run(["monmaptool", "--create", "--fsid", cluster, "--addv", "a", address, map_file])
        _run([
            "ceph-mon", "--mkfs", "-i", "a", "--conf", str(self._config), "--monmap", map_file,
            "--keyring", str(self.directory / "keyring"),
        ])  # fmt: skip

    def _register_osd(self) -> str:
        """Shell text that makes the OSD known to the monitor and lays its data down, once."""
        ceph = f"{program('ceph')} --conf '{self._config}' --name client.admin"
        number = (self.directory / "osd-uuid").read_text()
        return (
            f"{ceph} osd new {number} 0 >/dev/null"
            f" && {program('ceph-osd')} -i 0 --conf '{self._config}' --mkfs --osd-uuid {number}"
        )


def program(name: str) -> Path:
    """A program of Ceph; raises `Unavailable`."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise Unavailable(
            f"{name} is not on this machine; install Ceph's object gateway (Debian's packages "
            f"{', '.join(PACKAGES)})."
        )
    return Path(found)


def _run(line: list[str]) -> None:
    done = subprocess.run(
        [str(program(line[0])), *line[1:]], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Unavailable(f"{line[0]} ended with {done.returncode}: {done.stderr.strip()[-400:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
