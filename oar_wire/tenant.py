"""Tenants: a name and its limits, and the file that an operator writes them into."""

from typing import Annotated

from pydantic import Field, field_validator

from oar_wire.base import Accepted
from oar_wire.options import Priority

OPEN_TENANT = "-"  # the only one of a server without keys; no file can name it

TenantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
KeyHash = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class TenantLimits(Accepted):
    """Limits of a tenant; each has a default that leaves room for others."""

    rate: float = Field(default=20, ge=0, le=100_000, description="Requests a second; 0 is no limit")
    burst: int = Field(default=0, ge=0, le=1_000_000, description="Requests at once; 0 is two seconds' worth")
    queue_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of OAR_QUEUE_DEPTH that its jobs may fill, and of the threads and the queue for pictures",
    )
    storage_share: float = Field(
        default=0.5, gt=0, le=1, description="Share of OAR_STORAGE_MIB that its jobs and their pictures may take"
    )
    priority_ceiling: Priority = Field(default="high", description="The highest priority that its requests may name")
    max_sockets: int = Field(default=64, ge=0, description="Open websockets and event streams, in each API process")


class Tenant(TenantLimits):
    name: str

    @property
    def bucket(self) -> int:
        """Requests that may come at once."""
        return self.burst or max(1, round(2 * self.rate))

    def max_jobs(self, queue_depth: int) -> int:
        """Most jobs of one model that wait or run."""
        return self.share_of(queue_depth)

    def share_of(self, total: int) -> int:
        """The tenant's part of something that all share, at least 1."""
        return max(1, int(self.queue_share * total))

    def max_bytes(self, storage_mib: int) -> int:
        """Most bytes of Redis that all its jobs may take, from their submit until they have expired."""
        return int(self.storage_share * storage_mib * (1 << 20))


class TenantEntry(TenantLimits):
    """One table `[tenants.NAME]` of the file."""

    keys: list[KeyHash] = Field(description="SHA-256 of each key, as `oar keys` writes it")


class KeyFile(Accepted):
    """The whole file. `[defaults]` is what a tenant has that says nothing else."""

    defaults: TenantLimits = TenantLimits()
    tenants: dict[TenantName, TenantEntry]

    @field_validator("tenants")
    @classmethod
    def _check_keys(cls, tenants: dict[str, TenantEntry]) -> dict[str, TenantEntry]:
        owners: dict[str, str] = {}
        for name, entry in tenants.items():
            for key in entry.keys:
                if owners.setdefault(key, name) != name:
                    raise ValueError(f"{owners[key]} and {name} have the same key {key[:19]}…")
        if not owners:
            raise ValueError("no tenant has a key")
        return tenants

    def tenant(self, name: str) -> Tenant:
        """Fills in the defaults."""
        limits = self.defaults.model_dump() | self.tenants[name].model_dump(exclude={"keys"}, exclude_unset=True)
        return Tenant(name=name, **limits)


def open_tenant() -> Tenant:
    """The one of a server without keys: whatever the server can do."""
    return Tenant(name=OPEN_TENANT, rate=0, queue_share=1, storage_share=1, max_sockets=1 << 31)
