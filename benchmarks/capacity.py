"""The model of a site: what each station spends on its work, and how much work fills it.

A station is what runs on cores of its own: PostgreSQL of the catalog, the pooler, the Prefect
server, its PostgreSQL, the recorder, the workflows' processes. Each has costs in CPU milliseconds,
which add up: utilisation = (sum of rate x cost) / cores. Queues are left out; above 0.7 or so they
make everything slower than the model says.
"""

from dataclasses import dataclass, fields, replace

CATALOG, POOLER, SERVER, SERVER_DB, RECORDER, CONTROL = STATIONS = (
    "PostgreSQL, catalog", "PgBouncer", "Prefect server", "PostgreSQL, Prefect", "recorder",
    "workflows",
)  # fmt: skip
DAY_S = 86_400


@dataclass(frozen=True)
class Costs:
    """CPU milliseconds by what is done and who does it, and bytes on disk."""

    job_catalog: float
    """Registered, defined, leased, committed: with its share of a commit of its own."""
    beat_catalog: float
    poll_catalog: float
    """A lease that finds nothing."""
    advance_catalog: float
    job_pooler: float
    beat_pooler: float
    poll_pooler: float
    idle_server: float
    """A server without nodes, for a second, with what the control host asks of it."""
    worker_server: float
    """A node's worker that is only connected, for a second."""
    worker_beat_server: float
    poll_server: float
    run_server: float
    run_worker_server: float
    """More of a flow run for each worker that is connected: its events go past them all."""
    record_server: float
    """A task run, as the recorder shows it."""
    worker_server_db: float
    worker_beat_server_db: float
    poll_server_db: float
    run_server_db: float
    record_server_db: float
    job_recorder: float
    job_control: float
    job_catalog_bytes: float
    record_server_bytes: float

    def __post_init__(self) -> None:
        """A measurement's noise is no gain."""
        for field in fields(self):
            object.__setattr__(self, field.name, max(0.0, getattr(self, field.name)))


@dataclass(frozen=True)
class Load:
    """What is asked of a site. Each node has a pilot at work. Rates are per second."""

    nodes: int
    jobs_per_s: float
    beat_s: float = 5.0
    shift_s: float = 1800.0
    worker_polls_per_s: float = 10.0
    worker_query_s: float = 1.0
    worker_beat_s: float = 30.0
    prompt_s: float = 10.0
    """How long a node asks as if it were alone after a pilot of it has ended."""
    idle_share: float = 0.5
    """Pilots that have room for more jobs and find none."""
    lease_poll_s: float = 0.25
    lease_polls_per_s: float = 200.0
    """Of all pilots of one task, where they are so many that each would ask more often."""
    tasks: int = 4
    workflows: int = 4
    node_beats: float = 1.0
    """Heartbeats of a node for each of its pilot's."""
    advance_s: float = 1.0

    @property
    def beats_per_s(self) -> float:
        """Heartbeats of pilots, and those of nodes, which cost no more."""
        return (1 + self.node_beats) * self.nodes / self.beat_s

    @property
    def polls_per_s(self) -> float:
        """Polls of all workers at the Prefect server."""
        whole = self.nodes / self.worker_query_s
        prompt = self.runs_per_s * self.prompt_s / self.worker_query_s
        return min(whole, self.worker_polls_per_s + prompt)

    @property
    def empty_leases_per_s(self) -> float:
        """Lease polls of pilots that find nothing."""
        one_s = max(self.lease_poll_s, self.nodes / self.tasks / self.lease_polls_per_s)
        return self.idle_share * self.nodes / one_s

    @property
    def runs_per_s(self) -> float:
        """Pilots that begin: flow runs."""
        return self.nodes / self.shift_s


@dataclass(frozen=True)
class Site:
    """What there is: cores of the databases, and processes that fill one core at most each."""

    database_cores: float = 8.0
    server_database_cores: float = 8.0
    servers: int = 1
    poolers: int = 1
    recorders: int = 1
    workflows: int = 4
    partitions: int = 1
    """Catalogs, each with nodes, workflows, a pooler and a recorder of its own."""

    def cores(self, station: str) -> float:
        """Cores that a station can fill."""
        return {
            CATALOG: self.database_cores * self.partitions,
            POOLER: self.poolers * self.partitions,
            SERVER: self.servers,
            SERVER_DB: self.server_database_cores,
            RECORDER: self.recorders * self.partitions,
            CONTROL: self.workflows * self.partitions,
        }[station]


def busy_cores(costs: Costs, load: Load) -> dict[str, float]:
    """Cores that each station keeps busy under a load."""
    ms = {
        CATALOG: load.jobs_per_s * costs.job_catalog
        + load.beats_per_s * costs.beat_catalog
        + load.empty_leases_per_s * costs.poll_catalog
        + load.workflows / load.advance_s * costs.advance_catalog,
        POOLER: load.jobs_per_s * costs.job_pooler
        + load.beats_per_s * costs.beat_pooler
        + load.empty_leases_per_s * costs.poll_pooler,
        SERVER: costs.idle_server
        + load.jobs_per_s * costs.record_server
        + load.nodes * costs.worker_server
        + load.nodes / load.worker_beat_s * costs.worker_beat_server
        + load.polls_per_s * costs.poll_server
        + load.runs_per_s * (costs.run_server + load.nodes * costs.run_worker_server),
        SERVER_DB: load.jobs_per_s * costs.record_server_db
        + load.nodes * costs.worker_server_db
        + load.nodes / load.worker_beat_s * costs.worker_beat_server_db
        + load.polls_per_s * costs.poll_server_db
        + load.runs_per_s * costs.run_server_db,
        RECORDER: load.jobs_per_s * costs.job_recorder,
        CONTROL: load.jobs_per_s * costs.job_control,
    }
    return {station: ms[station] / 1000 for station in STATIONS}


def utilisation(costs: Costs, load: Load, site: Site) -> dict[str, float]:
    """Part of its cores that each station keeps busy; above 1 it falls behind."""
    return {name: cores / site.cores(name) for name, cores in busy_cores(costs, load).items()}


@dataclass(frozen=True)
class Saturation:
    """The first station to be full as jobs grow, and the jobs per second that fill it."""

    station: str
    jobs_per_s: float


def saturation(costs: Costs, load: Load, site: Site) -> Saturation:
    """Where more jobs per second come to an end, with all else as in `load`.

    The rate is 0 where what the nodes cost alone is too much.
    """
    none = utilisation(costs, _with_jobs(load, 0.0), site)
    one = utilisation(costs, _with_jobs(load, 1.0), site)
    limits = {}
    for name in STATIONS:
        room, per_job = 1.0 - none[name], one[name] - none[name]
        if room <= 0:
            limits[name] = 0.0
        elif per_job > 0:
            limits[name] = room / per_job
        else:
            limits[name] = float("inf")
    # Of several that are full without a job, the fullest.
    first = min(STATIONS, key=lambda name: (limits[name], -none[name]))
    return Saturation(first, limits[first])


def node_saturation(costs: Costs, load: Load, site: Site, most: int = 1_000_000) -> Saturation:
    """As `saturation` for nodes: the fewest nodes that fill a station at this rate of jobs."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        full = max(utilisation(costs, _with_nodes(load, middle), site).values()) >= 1
        low, high = (low, middle) if full else (middle, high)
    used = utilisation(costs, _with_nodes(load, high), site)
    return Saturation(max(used, key=lambda name: used[name]), float(high))


def connections(load: Load) -> dict[str, int]:
    """Connections that are open: to the pooler (or PostgreSQL), and to the Prefect server."""
    return {"catalog": 4 * load.nodes, "Prefect server": 3 * load.nodes}


def bytes_per_day(costs: Costs, load: Load) -> dict[str, float]:
    """What a day at this rate leaves on disk, in the catalog and in Prefect's database."""
    jobs = load.jobs_per_s * DAY_S
    return {"catalog": jobs * costs.job_catalog_bytes, "Prefect": jobs * costs.record_server_bytes}


def _with_jobs(load: Load, jobs_per_s: float) -> Load:
    return replace(load, jobs_per_s=jobs_per_s)


def _with_nodes(load: Load, nodes: int) -> Load:
    return replace(load, nodes=nodes)
