"""Data parallel training: the processes that `torchrun` starts share out each batch and add up their gradients."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor

# One process may make what all need, for hours, while the others wait.
PATIENCE = timedelta(days=2)
WORLD_SIZE, LOCAL_RANK = "WORLD_SIZE", "LOCAL_RANK"  # in the environment, by torchrun


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> "Processes":
        """One alone, outside of `joined`."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    @property
    def is_first(self) -> bool:
        """Tells whether it is the one that writes."""
        return self.rank == 0

    def mine(self, count: int) -> range:
        """Lists the parts that this process has, of so many."""
        return range(self.rank, count, self.count)

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            dist.barrier()

    def mean(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Averages scalars over all processes."""
        table = torch.stack([value.detach().float() for value in losses.values()])
        if self.count > 1:
            dist.all_reduce(table)
        return dict(zip(losses, (table / self.count).tolist()))


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Joins the processes that `torchrun` started, if it did; gives each the device to train on, a GPU of its own where
    the device is a GPU."""
    if int(os.environ.get(WORLD_SIZE, "1")) == 1:
        yield device
        return
    own = device
    if device.type == "cuda":
        own = torch.device("cuda", int(os.environ[LOCAL_RANK]))
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield own
    finally:
        dist.destroy_process_group()


@contextmanager
def first_alone() -> Iterator[None]:
    """Lets the first process make what is kept in files; the others find it there."""
    processes = Processes.current()
    if not processes.is_first:
        processes.wait()
    yield
    if processes.is_first:
        processes.wait()


def shards_of(indices: Int[Tensor, "B"], num_shards: int, processes: Processes) -> list[tuple[int, Int[Tensor, "S"]]]:
    """The parts of a batch that this process has, each with its number."""
    parts = indices.chunk(num_shards)
    return [(number, parts[number]) for number in processes.mine(num_shards)]
