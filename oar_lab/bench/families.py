"""Each family at its published sizes with random weights: the engine against the plain loop of the family's kind, and
the native network in as many steps."""

import copy
import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from oar_core.engine.calibration import Calibration, words
from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.model_runner import fastest
from oar_core.models.model import in_number_format
from oar_core.nn.packed import NEVER, PackedLinear, Packing
from oar_core.order.plan import make_plan
from oar_core.sampling.request import SequenceRequest
from oar_lab.bench.clock import Clock, Setting
from oar_lab.bench.plain import PLAIN_LOOPS
from oar_lab.bench.roofline import measure_rates
from oar_lab.bench.sized import GPT_WIDTHS, NATIVE, SizedNetwork, conditions_of, sized_network
from oar_lab.bench.table import table

PLAIN = "plain loop"
WARM_UP_STEPS = 3
# Number formats among which the calibration chooses: by default, and as OAR_DTYPE=fastest.
FORMATS = {"": (torch.float32,), ", fastest format": (torch.float32, torch.bfloat16)}


@dataclass(frozen=True)
class FamilyRow:
    family: str
    batch: int
    steps: int
    way: str
    dtype: str
    seconds: float
    times_plain: float  # the plain loop's seconds over these, in the median round
    least_times: float  # in the round where that is least
    most_times: float
    linear_gflops: float | None  # of the linear layers, in the last run; None where they were not counted
    linear_share: float | None  # of the machine's matrix rate in that number format


@dataclass(frozen=True)
class FamiliesReport:
    size: str
    layers: int
    repeats: int
    gflops: dict[str, float]  # the machine's matrix rate by number format
    choices: dict[str, str]  # kernels and number format that were chosen, by family
    rows: list[FamilyRow]
    setting: Setting

    def table(self) -> str:
        headers = ("family", "pictures", "steps", "way", "dtype", f"{self.setting.clock} seconds", "times plain loop",
                   "least to most", "linear layers GFLOP/s", "of the matrix rate")  # fmt: skip
        rows = (
            (
                *(r.family, r.batch, r.steps, r.way, r.dtype, r.seconds, r.times_plain),
                f"{r.least_times:.2f}-{r.most_times:.2f}",
                r.linear_gflops or "",
                r.linear_share or "",
            )
            for r in self.rows
        )
        rates = table(("dtype", "matrix rate GFLOP/s"), self.gflops.items())
        choices = table(("family", "chosen"), self.choices.items())
        return f"{rates}\n\n{choices}\n\n{table(headers, rows)}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class LinearCount:
    """Operations and seconds of a network's linear layers."""

    clock: Callable[[], float]
    flops: int = 0
    seconds: float = 0.0
    _start: float = field(default=0.0, repr=False)

    def watch(self, network: nn.Module) -> None:
        for layer in network.modules():
            if isinstance(layer, nn.Linear | PackedLinear):
                layer.register_forward_pre_hook(self._begin)
                layer.register_forward_hook(self._end)

    def clear(self) -> None:
        self.flops, self.seconds = 0, 0.0

    def _begin(self, _layer: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        self._start = self.clock()

    def _end(self, _layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        self.seconds += self.clock() - self._start
        self.flops += 2 * outputs.numel() * inputs[0].shape[-1]


@dataclass(frozen=True)
class _Way:
    """One way to make a batch of pictures."""

    name: str
    dtype: str
    work: Callable[[], object]
    warm_up: Callable[[], object]  # its first steps
    count: LinearCount | None = None


@dataclass(frozen=True)
class _Runner:
    """A network in one number format, with the kernels that were chosen for it."""

    name: str
    dtype: str
    network: nn.Module
    sized: SizedNetwork
    count: LinearCount

    @classmethod
    def all_of(cls, name: str, sized: SizedNetwork, clock: Clock, folder: Path | None) -> tuple[list["_Runner"], str]:
        """One for each of FORMATS that chooses another number format, and the choices in words."""
        runners: dict[str, _Runner] = {}
        chosen: list[str] = []
        for suffix, dtypes in FORMATS.items():
            network = sized.backbone
            choice = Calibration.stored(folder, network, dtypes) if folder else Calibration.measure(network, dtypes)
            chosen.append(words(choice))
            if choice.dtype not in runners:
                own = in_number_format(copy.deepcopy(sized.backbone), getattr(torch, choice.dtype))
                network, count = fastest(own, choice.packing), LinearCount(clock.now)
                count.watch(network)
                runners[choice.dtype] = cls(f"{name}{suffix}", choice.dtype, network, sized, count)
        return list(runners.values()), "; ".join(chosen)

    def way(self, batch: int, steps: int) -> _Way:
        requests = self.sized.requests(batch, steps)
        config = EngineConfig(2 * batch, packing=Packing(NEVER))  # it is laid out already
        engine = Engine(self.network, self.sized.unconditional_ids, config)  # pyright: ignore[reportArgumentType]

        def work() -> None:
            self.count.clear()
            for request in requests:
                engine.add(request)
            while engine.has_work:
                engine.step()

        def warm_up() -> None:
            for request in requests:
                engine.add(request)
            for _ in range(WARM_UP_STEPS):
                engine.step()
            for request in requests:
                engine.abort(request.id)
            engine.step()

        return _Way(self.name, self.dtype, work, warm_up, self.count)


def measure_families(
    families: Sequence[str],
    *,
    size: str,
    batches: Sequence[int],
    repeats: int,
    layers: int | None = None,
    steps: int | None = None,
    has_native: bool = True,
    folder: Path | None = None,
) -> FamiliesReport:
    """Transformers alone: from requests to tokens, by medians of `repeats` runs in turn after a few steps that do not
    count. In as many steps as the family's card says, unless given. What is chosen for a network is kept in the
    `folder`, if there is one."""
    clock = Clock(torch.device("cpu"))
    rates = {r.dtype: r.gflops for r in measure_rates(torch.device("cpu"), [torch.get_num_threads()])}
    rows: list[FamilyRow] = []
    native, choices = ([], {}) if not has_native or set(families) == {NATIVE} else _native(size, layers, clock, folder)
    for key in families:
        sized = sized_network(key, size, layers)
        runners, choices[key] = _Runner.all_of("engine", sized, clock, folder)
        for batch in batches:
            rows += _measure(sized, [*runners, *native], batch, steps or sized.steps, repeats, clock, rates)
        del sized, runners
        gc.collect()
    depth = layers or GPT_WIDTHS[size][1]
    return FamiliesReport(size, depth, repeats, rates, choices, rows, clock.setting(torch.float32))


def _native(size: str, layers: int | None, clock: Clock, folder: Path | None) -> tuple[list[_Runner], dict[str, str]]:
    """To set beside published families."""
    runners, chosen = _Runner.all_of("native engine", sized_network(NATIVE, size, layers), clock, folder)
    return runners, {NATIVE: chosen}


def _measure(
    sized: SizedNetwork,
    runners: Sequence[_Runner],
    batch: int,
    steps: int,
    repeats: int,
    clock: Clock,
    rates: dict[str, float],
) -> list[FamilyRow]:
    requests = sized.requests(batch, steps)
    work, warm_up = plain_work(sized, requests), plain_work(sized, requests, most_steps=WARM_UP_STEPS)
    plain = _Way(PLAIN, "float32", work, warm_up)
    own = [runner for runner in runners if runner.sized.key != sized.key or runner.sized is sized]
    ways = [plain, *(runner.way(batch, _fitting(runner.sized, steps)) for runner in own)]
    for way in ways:
        way.warm_up()
    rounds = clock.turns([way.work for way in ways], repeats)
    rows: list[FamilyRow] = []
    for way, seconds in zip(ways, zip(*rounds, strict=True)):
        gflops = None if way.count is None else 1e-9 * way.count.flops / max(way.count.seconds, 1e-9)
        share = None if gflops is None else gflops / rates[way.dtype]
        times = sorted(each[0] / own for each, own in zip(rounds, seconds))
        figures = (median(seconds), median(times), times[0], times[-1], gflops, share)
        rows.append(FamilyRow(sized.key, batch, steps, way.name, way.dtype, *figures))
    return rows


def _fitting(sized: SizedNetwork, steps: int) -> int:
    """The native network has fewer positions than Janus."""
    return min(steps, sized.backbone.spec.num_tokens)


def plain_work(
    sized: SizedNetwork, requests: Sequence[SequenceRequest], *, most_steps: int | None = None, **draw: Any
) -> Callable[[], Tensor]:
    """The plain loop over a network as a checkpoint holds it, for requests that share their groups."""
    network = sized.published
    spec = network.spec
    conditions = conditions_of(requests)
    plans = [
        make_plan(r.plan, spec.grid, seed=r.seed, image_index=r.image_index, published=spec.published_groups)
        for r in requests
    ]
    ends = (0, *plans[0].group_ends)
    sizes = [end - start for start, end in pairwise(ends)]
    orders = torch.tensor([plan.order for plan in plans])
    unconditional = spec.unconditional_beside(conditions[0], sized.unconditional_ids)
    loop = PLAIN_LOOPS[sized.key](network, conditions, unconditional, requests[0].sampling.guidance)
    return partial(loop.run, orders, sizes[:most_steps], **draw)
