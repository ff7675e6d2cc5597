"""What an instance is set to. URLs hold passwords, so no ``repr`` shows one."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

#: Connections of a pool whose size nobody has set, at least.
POOL_LEAST = 10
#: Relative to the working folder.
DEFAULT_DATA_DIR = Path("jobber-data")


class _Pooled:
    """Something with a pool of connections."""

    __slots__ = ()
    pool_size: int

    @property
    def connections(self) -> int:
        """Connections that one process keeps at most."""
        return self.pool_size or POOL_LEAST


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings(_Pooled):
    """A source database, ``[db.NAME]``."""

    name: str
    url: str = field(repr=False)  # SQLAlchemy URL with its password; never shown
    engine: str  # SQLAlchemy dialect name: "postgresql", "mysql", "sqlite", "duckdb" …
    max_concurrent: int = 0  # jobs running on it at a time over all workers; 0 is no limit
    max_starts: float = 0.0  # jobs starting on it per second, over all workers, on the average; 0 is any number
    pool_size: int = 0  # connections at most; 0: as many as the process runs jobs at a time, at least POOL_LEAST
    connect_timeout: float = 10.0  # seconds
    timeout: int = 3600  # default time limit of a query, seconds; 0 is none
    server_side_cursors: bool = True  # off behind a transaction-pooling proxy (pgbouncer)
    zero_dates: str = "fail"  # MySQL's 0000-00-00 and 2024-00-00: "fail" the job, or become "null"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsSettings(_Pooled):
    """A results database, ``[results.NAME]``."""

    name: str
    url: str = field(repr=False)  # SQLAlchemy URL; for SQLite its path names a folder
    engine: str
    results_table: str = "results_%s"  # template of table names; holds %s once and adds to it
    unlogged: bool = False  # PostgreSQL: tables skip the WAL; a crash of the server empties them
    grant_select_to: tuple[str, ...] = ()  # PostgreSQL: roles that may read every published result
    pool_size: int = 0  # as above
    connect_timeout: float = 10.0
    publish_timeout: float = 60.0  # seconds that publishing waits for readers who keep the older result open


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """The broker, ``[job_queue.broker]``."""

    url: str = field(repr=False)  # kombu URL: "redis://…", "amqp://…" or "filesystem://" (embedded)
    key_prefix: str = "jobber:"  # of every Redis key, and every exchange and queue of RabbitMQ

    @property
    def networked(self) -> bool:
        """Whether other machines can reach it."""
        return not self.url.startswith("filesystem:")

    @property
    def rabbitmq(self) -> bool:
        """Whether it is RabbitMQ."""
        return self.url.startswith(("amqp:", "amqps:"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSettings:
    """The state store, ``[job_queue.state]``."""

    url: str = field(repr=False)  # SQLAlchemy URL
    pool_size: int = 15
    embedded: bool = False  # nobody configured it: SQLite in the data folder


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSettings:
    """``[app]``."""

    data_dir: Path = DEFAULT_DATA_DIR  # embedded broker and state live here
    default_queue: str = "default"
    max_jobs: int = 0  # running at a time over all workers; 0 is no limit
    tenant_tag: str = ""  # the tag of jobs whose value names their tenant; "" is none
    tenant_max_concurrent: int = 0  # jobs of each tenant running at a time; 0 is no limit
    tenant_max_pending: int = 0  # jobs of each tenant that may wait; 0 is any number
    ttl: int = 86_400  # seconds results live unless job or task says otherwise; 0 is for ever
    history: int = 7 * 86_400  # seconds that finished jobs stay visible
    lease: int = 30  # seconds without a heartbeat after which a worker counts as dead
    heartbeat: float = 5.0
    sweep: float = 5.0  # seconds between sweeps that wake queues with runnable jobs
    max_rescues: int = 3
    retry_on: str = "transient"  # which failures are tried again: those that time may cure, or "any"
    retry_delay: float = 1.0  # seconds before the first retry of a job; doubled for each further one …
    retry_delay_max: float = 300.0  # … up to this many
    drain_timeout: float = 30.0
    start_timeout: float = 30.0  # seconds that the start waits for databases before it goes on without those missing
    max_wait: int = 60  # longest ?wait=, seconds
    max_body: int = 16 * 1024 * 1024  # bytes of a request body
    log_level: str = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """A queue, ``[queue.NAME]``, or a tenant, ``[tenant.NAME]``."""

    name: str
    max_concurrent: int = 0  # jobs running at a time over all workers; 0 is no limit
    max_pending: int = 0  # jobs that may wait; 0 is any number


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """Calls to the ``callback_url`` of jobs and groups, ``[webhooks]``."""

    secret: str = field(default="", repr=False)  # that signs them; without one there are no such calls
    allow: tuple[str, ...] = ()  # hosts that may be called, "*.example.com" those below; empty is every host

    @property
    def key(self) -> bytes:
        """What the secret stands for: base64 after ``whsec_``, else the text itself. Raises ValueError."""
        text = self.secret.removeprefix("whsec_")
        if text == self.secret:
            return text.encode()
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        if not key:
            raise ValueError("nothing follows whsec_")
        return key

    def refusal(self, host: str) -> str:
        """Return why a host may not be called, for people; empty if it may."""
        if not self.secret:
            return "calls could not be signed: the config of this server needs a section [webhooks]"
        for name in (name.lower().rstrip(".") for name in self.allow):
            if host == name or (name.startswith("*.") and host.endswith(name[1:])):
                return ""
        return f"the setting webhooks.allow does not name {host}" if self.allow else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSettings:
    """State changes told to a broker, ``[events]``."""

    enabled: bool = False
    exchange: str = "jobber.events"  # a topic exchange
    url: str = field(default="", repr=False)  # kombu URL; "" is that of job_queue.broker


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of an instance."""

    app: AppSettings
    broker: BrokerSettings
    state: StateSettings
    databases: Mapping[str, DatabaseSettings]
    results: Mapping[str, ResultsSettings]
    queues: Mapping[str, LimitSettings] = field(default_factory=dict)  # those with limits
    tenants: Mapping[str, LimitSettings] = field(default_factory=dict)  # those with limits of their own
    webhooks: WebhookSettings = field(default_factory=WebhookSettings)
    events: EventSettings = field(default_factory=EventSettings)
    warnings: tuple[str, ...] = field(default=())  # what was accepted but ignored (legacy keys)

    def for_jobs(self, number: int) -> Settings:
        """Return the settings of a process that runs so many jobs at a time: none of them waits for a connection."""
        size = max(number, POOL_LEAST)
        # One more, to ask planners for estimates.
        databases = {name: replace(of, pool_size=of.pool_size or size + 1) for name, of in self.databases.items()}
        results = {name: replace(of, pool_size=of.pool_size or size) for name, of in self.results.items()}
        return replace(self, databases=databases, results=results)
