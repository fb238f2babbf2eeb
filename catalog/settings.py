"""Configuration, read once from the environment (`SPDF_*`) and `SPDF_HOME/spdf.env`."""

import os
import socket
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from catalog.places import given_path, sqlite_url

_MOST, _MOST_BYTES = 2**31 - 1, 2**63 - 1


class Settings(BaseSettings):
    """All settings. Each may be given as `SPDF_<NAME>`; times are seconds."""

    model_config = SettingsConfigDict(
        env_prefix="SPDF_", extra="ignore", env_ignore_empty=True, allow_inf_nan=False
    )

    home: Path = Field(
        default_factory=lambda: Path.home() / ".spdf",
        description="Where the embedded profile keeps its state.",
    )
    catalog_url: str = Field(
        "", description="SQLAlchemy URL of the catalog; empty: SQLite in SPDF_HOME."
    )
    work_dir: Path | None = Field(
        None, description="Node-local scratch space of payloads; empty: SPDF_HOME/work."
    )
    upload_streams: int = Field(
        4, ge=1, description="Files that one upload copies at the same time."
    )
    spool: Path | None = Field(
        None, description="Directory in which programs leave requests; empty: SPDF_HOME/spool."
    )
    delete_grace_s: float = Field(
        86400.0,
        ge=0,
        description="How long `spdf dataset delete` can be taken back; 0: not at all.",
    )
    failed_holds_s: float = Field(
        604_800.0,
        ge=0,
        description="How long a FAILED workflow that a person began keeps its input, and what it "
        "made, from going by a lifetime: it may be retried.",
    )
    requests_remove_originals: bool = Field(
        False,
        description="Requests `dataset.delete` may say `removeOriginals`; else they are refused.",
    )
    look_s: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="How long a look at a storage may give no sign of getting on.",
    )
    idle_s: float = Field(
        5.0,
        ge=0,
        le=86_400,
        description="How long a dataset whose other sources have ended waits for a rule without a "
        "file of it.",
    )
    node: str = Field(default_factory=socket.gethostname, description="This node's name.")
    slots: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=65_536,
        description="CPU slots of this node.",
    )
    memory_mib: int = Field(
        0, ge=0, description="Memory that jobs of this node may reserve, MiB; 0: what it has."
    )
    devices: str = Field(
        "", description="Numbers of the GPUs that jobs may use, as 0,1; empty: what NVML finds."
    )
    container_engine: Literal["", "docker", "podman"] = Field(
        "", description="What runs payloads with a DockerRequirement; empty: nothing does."
    )
    api_port: int = Field(0, ge=0, le=65535, description="Port of the server; 0: a free one.")

    api_url: str = Field(
        "", description="The site's Prefect API, http://…/api; empty: the server of `spdf up`."
    )
    api_auth: SecretStr = Field(SecretStr(""), description="Its login, user:password.")
    server_database_url: SecretStr = Field(
        SecretStr(""),
        description="Database of the Prefect server; empty: SQLite, or of a site's unknown.",
    )
    local_payloads: bool = Field(
        True, description="`spdf up` starts workers for payloads on this machine, too."
    )
    pilots_in: Literal["process", "docker"] = Field(
        "process", description="What pilots run in: process, or docker for containers of the image."
    )
    pilot_image: str = Field(
        "", description="Image of pilots' containers; empty: what `make image` builds."
    )
    pilot_volumes: list[str] = Field(
        default_factory=list,
        description="Volumes of pilots' containers, as JSON; empty: SPDF_HOME and SPDF_WORK_DIR.",
    )
    local_servers: bool = Field(
        False, description="`spdf up` starts PostgreSQL and an S3 server of its own, too."
    )

    lease_s: float = Field(60.0, gt=0, description="Life of a job lease without a heartbeat.")
    heartbeat_s: float = Field(5.0, gt=0, description="Time between a pilot's heartbeats.")
    workflow_lease_s: float = Field(
        45.0, gt=0, description="Life of a workflow's ownership without a beat."
    )
    advance_s: float = Field(
        1.0, gt=0, description="Longest time between advances of a workflow that moves."
    )
    watchdog_s: float = Field(60.0, gt=0, description="Time between starts of the watchdog.")
    pilot_shift_jobs: int = Field(20_000, ge=1, description="Jobs after which a pilot ends.")
    pilot_shift_s: float = Field(1800.0, gt=0, description="Time after which a pilot ends.")
    pilot_idle_s: float = Field(
        300.0,
        ge=0,
        description="How long a pilot without jobs stays while its task may yet get some.",
    )
    drain_s: float = Field(30.0, gt=0, description="Time a stopping pilot gives running jobs.")
    history_days: float = Field(
        90.0, ge=0, description="Days that the history of ended workflows is kept; 0: for ever."
    )
    verify_inputs: bool = Field(
        False, description="Read inputs that are linked through, to compare their checksums."
    )
    window: int = Field(500, ge=1, description="Most jobs that a pilot holds beyond its slots.")
    commit_jobs: int = Field(200, ge=1, description="Most results in one group commit.")
    commit_s: float = Field(0.25, gt=0, description="Longest wait of a result for its commit.")
    max_pilots: int = Field(
        0, ge=0, description="Most live pilots per task by default; 0: one per online worker."
    )

    worker_polls_per_s: float = Field(
        10.0, ge=0.01, description="Most polls per second of all nodes of a pool for pilots."
    )

    recorder_unconfirmed: int = Field(
        2000, ge=1, description="Most task runs posted to Prefect and not yet read back."
    )
    recorder_batch: int = Field(100, ge=1, description="Task runs per post to Prefect.")

    expression_s: float = Field(20.0, gt=0, description="Time limit of one CWL expression.")
    expression_bytes: int = Field(
        256 * 2**20, gt=0, description="Memory limit of the expression engine."
    )
    db_connections: int = Field(
        0, ge=0, description="Connections to PostgreSQL of one process; 0: from its slots."
    )
    db_pooler: str = Field(
        "",
        pattern=r"^([^\s:]+:\d{1,5})?$",
        description="PgBouncer, host:port, that sessions with the catalog go through.",
    )
    outage_s: float = Field(
        300.0,
        gt=0,
        description="How long a pilot waits for a catalog or storage that is away, or a full one.",
    )

    s3_url: str = Field(
        "", description="S3 server of the default storages; empty: directories in SPDF_HOME."
    )
    s3_access_key: SecretStr = Field(
        SecretStr(""), description="Access key of S3 storages without a login of their own."
    )
    s3_secret_key: SecretStr = Field(SecretStr(""), description="Its secret key.")
    s3_logins: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='Logins by storage, as JSON: {"buffer": "ACCESS_KEY:SECRET_KEY"}.',
    )
    s3_region: str = Field("us-east-1", description="Region that requests are signed for.")
    s3_ca_file: Path | None = Field(
        None,
        description="Certificates that https storages are checked against; empty: the system's.",
    )
    s3_streams: int = Field(4, ge=1, description="Streams of one transfer to or from S3.")
    s3_part_bytes: int = Field(
        32 * 2**20, ge=5 * 2**20, description="Part of a transfer; larger files are cut into such."
    )

    log_json: bool = Field(False, description="Log lines as JSON.")

    @field_validator("*")
    @classmethod
    def _in_range(cls, value: Any, info: ValidationInfo) -> Any:
        """No number is beyond what clocks, threads and databases count with."""
        most = _MOST_BYTES if str(info.field_name).endswith("_bytes") else _MOST
        # What the watchdog's schedule can't have the set-up says, which alone reads it.
        if info.field_name != "watchdog_s" and isinstance(value, int | float) and value > most:
            raise ValueError(f"Input should be at most {most}")
        return value

    @property
    def pilots_at_once(self) -> int:
        """Most pilots of a pool on this node: some wait for others' cores, or for jobs."""
        return self.slots + 2

    def model_post_init(self, _context: Any) -> None:
        """Make paths absolute and fill in what depends on `home`."""
        self.home = given_path(self.home)
        if not self.catalog_url:
            self.catalog_url = sqlite_url(self.home / "catalog.db")
        if self.work_dir is None:
            self.work_dir = self.home / "work"
        self.work_dir = given_path(self.work_dir)
        if self.spool is None:
            self.spool = self.home / "spool"
        self.spool = given_path(self.spool)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read on the first call."""
    home = given_path(os.environ.get("SPDF_HOME", "") or Path.home() / ".spdf")
    return Settings(_env_file=home / "spdf.env")
