"""Settings of an engine: slots, memory, and which of its ways through the network it takes."""

from dataclasses import dataclass

from oar_core.errors import ConfigError
from oar_core.nn.packed import Packing

DEFAULT_MAX_PREFILL = 256  # tokens a step; on two CPU cores as many take about as long as a step of sixteen pictures


@dataclass(frozen=True)
class EngineConfig:
    """`num_slots` cache slots; a guided picture holds two. They are allocated as they are needed, and refused where all
    of them would exceed `max_cache_bytes`.

    Batched, a picture made in company is the one made alone up to rounding, which decides next to no draw in fp32 and
    some in bf16. Where it `is_deterministic`, pictures run side by side as well, but each goes through the network by
    itself: the numbers are the same to the last bit whatever runs beside it, at the speed of one picture after another.
    `packing` is of the `Calibration`; None is what suits most machines. Where it `is_static`, steps of fixed orders
    have one of few shapes; on CUDA they are graphs, captured at the start. Where it `is_compiled`, and not
    deterministic, the draw is a `CompiledDraw`.

    `max_prefill` is how many tokens of prefills a step takes in, see `Scheduler`. A deterministic engine divides none,
    since the size of a chunk would depend on the company. Raises ConfigError.
    """

    num_slots: int
    max_cache_bytes: int | None = None
    max_prefill: int = DEFAULT_MAX_PREFILL
    is_deterministic: bool = False
    packing: Packing | None = None
    is_static: bool = False
    is_compiled: bool = False

    def __post_init__(self) -> None:
        if self.num_slots < 2:
            raise ConfigError(f"num_slots is {self.num_slots}; a guided picture holds 2")
        if self.max_prefill < 1:
            raise ConfigError(f"max_prefill is {self.max_prefill}; at least 1 token is needed")
