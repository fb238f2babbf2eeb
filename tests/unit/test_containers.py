"""What a Docker pool says of pilots' containers, as prefect-docker and Docker's client take it."""

import asyncio
import gc
import json
import os
from pathlib import Path

import pytest
from docker.types import HostConfig
from prefect.client.orchestration import PrefectClient
from prefect_docker.worker import DockerWorkerJobConfiguration

from catalog.errors import Unavailable
from catalog.settings import Settings
from flows.containers import DOCKER, check_docker, own_image, pool_values, worker_values
from flows.pools import base_job_template

LOGIN = "spdf:not-for-the-server"


def configuration(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, pool: str = "cpu"
) -> DockerWorkerJobConfiguration:
    """What a worker of this node makes of the pool's template."""
    for name, value in worker_values(settings).items():
        monkeypatch.setenv(name, value)
    template = base_job_template(pool, DOCKER, pool_values(settings))
    nobody = PrefectClient("http://127.0.0.1:9/api")
    made = DockerWorkerJobConfiguration.from_template_and_values(template, {}, client=nobody)
    return asyncio.run(made)


def test_a_container_gets_the_settings_of_its_node_and_the_server_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPDF_API_AUTH", LOGIN)
    monkeypatch.setenv("SPDF_SLOTS", "3")
    monkeypatch.delenv("SPDF_WINDOW", raising=False)
    settings = Settings(home=tmp_path)
    found = configuration(settings, monkeypatch)
    assert found.image == own_image()
    assert found.env["SPDF_API_AUTH"] == LOGIN and found.env["SPDF_HOME"] == str(tmp_path)
    assert found.container_create_kwargs["user"] == f"{os.getuid()}:{os.getgid()}"
    assert LOGIN not in json.dumps(base_job_template("cpu", DOCKER, pool_values(settings)))
    for name, value in found.env.items():
        monkeypatch.setenv(name, value or "")
    there = Settings()
    assert (there.slots, there.home, there.work_dir) == (3, tmp_path, tmp_path / "work")
    assert there.window == Settings.model_fields["window"].default, "what is empty is not set"


def test_what_a_node_shares_with_its_pilots_is_one_mount_where_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    inside = Settings(home=home, work_dir=home / "scratch")
    assert configuration(inside, monkeypatch).volumes == [f"{home}:{home}"]
    outside = Settings(home=home, work_dir=tmp_path / "scratch")
    assert configuration(outside, monkeypatch).volumes == [
        f"{home}:{home}",
        f"{tmp_path}/scratch:{tmp_path}/scratch",
    ]
    given = Settings(home=home, pilot_volumes=["/etc/spdf:/etc/spdf:ro"], pilot_image="spdf:beam")
    found = configuration(given, monkeypatch)
    assert (found.volumes, found.image) == (["/etc/spdf:/etc/spdf:ro"], "spdf:beam")


def test_only_the_gpu_pool_asks_for_the_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}
    for pool in ("cpu", "gpu"):
        found = configuration(Settings(home=tmp_path), monkeypatch, pool)
        wanted = {k: v for k, v in found.container_create_kwargs.items() if k != "user"}
        host = HostConfig(version="1.41", network_mode=found.network_mode, **wanted)
        asked[pool] = host.get("DeviceRequests")
        assert (host["NetworkMode"], host["PidMode"], host["IpcMode"]) == ("host",) * 3
    assert asked["cpu"] is None
    (request,) = asked["gpu"]
    assert (request["Count"], request["Capabilities"]) == (-1, [["gpu"]])


# Docker's client leaves a socket open that it couldn't connect.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_pilots_in_containers_need_a_docker_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(Unavailable, match=r"no Docker answers at unix://.*SPDF_PILOTS_IN=process"):
        check_docker(Settings(home=tmp_path, pilots_in="docker"))
    gc.collect()
