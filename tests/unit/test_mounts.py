"""What is seen where, by the table of mounts."""

from pathlib import PurePosixPath

import pytest

from catalog.mounts import Mounts

TABLE = """\
1 1 8:1 / / rw - ext4 /dev/a rw
2 1 8:2 / /data rw shared:1 - ext4 /dev/b rw
3 2 8:1 /raw/run\\0401 /data/out/x rw - ext4 /dev/a rw
4 1 8:3 / /over rw - ext4 /dev/c rw
5 4 8:4 /in /over/deep/in rw - ext4 /dev/d rw
6 4 8:5 / /over/deep rw - ext4 /dev/e rw
7 1 8:6 / /twice rw - ext4 /dev/f rw
8 7 8:7 / /twice rw - ext4 /dev/g rw
"""


@pytest.mark.parametrize(
    ("path", "device", "on_device"),
    [
        ("/home/me", "8:1", "/home/me"),
        ("/data", "8:2", "/"),
        ("/data/out/xy", "8:2", "/out/xy"),
        ("/data/out/x/y", "8:1", "/raw/run 1/y"),
        ("/over/deep/in/y", "8:5", "/in/y"),
        ("/twice/y", "8:7", "/y"),
    ],
)
def test_a_path_is_on_the_device_of_the_nearest_mount_that_can_be_seen(
    path: str, device: str, on_device: str
) -> None:
    assert Mounts(TABLE).of(PurePosixPath(path)) == (device, PurePosixPath(on_device))


def test_what_is_mounted_below_a_folder_is_what_can_be_seen() -> None:
    def below(path: str) -> list[str]:
        return [str(mount.point) for mount in Mounts(TABLE).below(PurePosixPath(path))]

    assert below("/data") == below("/data/out") == ["/data/out/x"]
    assert below("/data/out/x") == below("/data/ou") == []
    assert below("/over") == ["/over/deep"], "what another lies over can't be seen"


def test_without_a_table_a_path_is_itself() -> None:
    assert Mounts("").of(PurePosixPath("/a/b")) == ("", PurePosixPath("/a/b"))
