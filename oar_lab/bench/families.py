"""Each family at its published sizes with random weights: the engine against the plain loop of the family's kind."""

import copy
import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from oar_core.engine.calibration import Calibration, words
from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.model_runner import fastest
from oar_core.errors import ConfigError
from oar_core.models.base import Backbone
from oar_core.models.load import family
from oar_core.models.model import in_number_format
from oar_core.nn.packed import NEVER, PackedLinear, Packing
from oar_core.order.plan import PlanSpec, make_plan
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.train.run import seeded_init
from oar_lab.bench.clock import Clock, Setting
from oar_lab.bench.plain import PLAIN_LOOPS, as_published
from oar_lab.bench.roofline import measure_rates
from oar_lab.bench.table import table

NATIVE_STEPS = 20  # of the native network, which is no published one: as many as LPD's
GPT_WIDTHS = {"tiny": (64, 2, 4, 256), "B": (768, 12, 12, 2048), "L": (1024, 24, 16, 2816), "XL": (1280, 36, 20, 3584)}
SIZES = tuple(GPT_WIDTHS)
PLAIN, AS_LAID, CHOSEN, FASTEST = "plain loop", "engine, weights as they are", "engine", "engine, fastest format"


@dataclass(frozen=True)
class FamilyRow:
    family: str
    batch: int
    steps: int
    way: str
    dtype: str
    seconds: float
    times_plain: float  # the plain loop's seconds over these
    linear_gflops: float | None  # of the linear layers, in the last run; None where they were not counted
    linear_share: float | None  # of the machine's matrix rate in that number format


@dataclass(frozen=True)
class FamiliesReport:
    size: str
    layers: int
    gflops: dict[str, float]  # the machine's matrix rate by number format
    choices: dict[str, str]  # kernels and number format that were chosen, by family
    rows: list[FamilyRow]
    setting: Setting

    def table(self) -> str:
        headers = ("family", "pictures", "steps", "way", "dtype", f"{self.setting.clock} seconds", "times plain loop",
                   "linear layers GFLOP/s", "of the matrix rate")  # fmt: skip
        rows = (
            (
                r.family,
                r.batch,
                r.steps,
                r.way,
                r.dtype,
                r.seconds,
                r.times_plain,
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
    name: str
    dtype: str
    work: Callable[[], object]
    count: LinearCount | None = None


def family_backbone(key: str, size: str, layers: int | None = None) -> tuple[Backbone, dict[str, Any]]:
    """A network of a published size with random weights, and the defaults of its card. `layers`: as many in place of
    all. Raises ConfigError for a family or a size that is not measured here."""
    if key not in PLAIN_LOOPS or size not in GPT_WIDTHS:
        raise ConfigError(
            f"family {key!r} of size {size!r} is not one of {', '.join(PLAIN_LOOPS)} of {', '.join(SIZES)}"
        )
    width, num_layers, num_heads, ffn_width = GPT_WIDTHS[size]
    num_layers, is_tiny = layers or num_layers, size == "tiny"
    config: dict[str, Any] = {
        "grid": (4, 4) if is_tiny else (16, 16),
        "vocab_size": 64 if is_tiny else 16_384,
        "width": width,
        "num_heads": num_heads,
    }
    stacks = max(1, num_layers // 2)
    if key == "oar":
        config |= {
            "condition_vocab": 1001,
            "max_condition": 1,
            "num_context_layers": stacks,
            "num_query_layers": stacks,
        }
    else:
        config |= {"num_classes": 1000, "num_layers": stacks if key == "arpg" else num_layers}
        config |= {} if key == "lpd" else {"ffn_width": ffn_width}
        config |= {"caption_width": 0} if key == "llamagen" else {}
    kind = family(key)
    with seeded_init(0):
        backbone = in_number_format(kind.build_backbone(key, config), torch.float32).eval()
    if kind.importer is None or kind.importer.publication is None:
        steps = min(NATIVE_STEPS, backbone.spec.num_tokens)
        return backbone, {"order": "halton", "steps": steps, "group_sizes": "cosine", "guidance": 4.0}
    return backbone, dict(kind.importer.publication(config).defaults)


def measure_families(
    families: Sequence[str], *, size: str, batches: Sequence[int], repeats: int, layers: int | None = None
) -> FamiliesReport:
    """Transformers alone: from requests to tokens, by medians of `repeats` runs in turn after one that does not
    count."""
    clock = Clock(torch.device("cpu"))
    rates = {r.dtype: r.gflops for r in measure_rates(torch.device("cpu"), [torch.get_num_threads()])}
    rows: list[FamilyRow] = []
    choices: dict[str, str] = {}
    for key in families:
        backbone, defaults = family_backbone(key, size, layers)
        best = {name: Calibration.measure(backbone, dtypes) for name, dtypes in _FORMATS.items()}
        choices[key] = f"fp32: {words(best[CHOSEN])}; any: {words(best[FASTEST])}"
        for batch in batches:
            rows += _measure(key, backbone, defaults, best, batch, repeats, clock, rates)
        del backbone
        gc.collect()
    depth = layers or GPT_WIDTHS[size][1]
    return FamiliesReport(size, depth, rates, choices, rows, clock.setting(torch.float32))


_FORMATS = {CHOSEN: (torch.float32,), FASTEST: (torch.float32, torch.bfloat16)}


def _measure(
    key: str,
    backbone: Backbone,
    defaults: dict[str, Any],
    best: dict[str, Calibration],
    batch: int,
    repeats: int,
    clock: Clock,
    rates: dict[str, float],
) -> list[FamilyRow]:
    plan = PlanSpec(
        defaults["order"], defaults["steps"], defaults["group_sizes"], repulsion=defaults.get("repulsion", 1)
    )
    sampling = SamplingParams(
        guidance=defaults["guidance"],
        guidance_schedule=defaults.get("guidance_schedule", "constant"),
        top_k=defaults.get("top_k", 0),
    )
    requests = [SequenceRequest(str(n), (n % 1000,), n, 0, plan, sampling) for n in range(batch)]
    ways = [
        _Way(PLAIN, "float32", plain_work(key, backbone, requests)),
        _engine_way(AS_LAID, backbone, torch.float32, Packing(NEVER), requests, clock),
    ]
    for name, choice in best.items():
        dtype = getattr(torch, choice.dtype)
        if not (dtype is torch.float32 and (name == FASTEST or not choice.packing.is_ever)):
            ways.append(_engine_way(name, backbone, dtype, choice.packing, requests, clock))
    measured = clock.medians([way.work for way in ways], repeats)
    rows: list[FamilyRow] = []
    for way, seconds in zip(ways, measured):
        gflops = None if way.count is None else 1e-9 * way.count.flops / max(way.count.seconds, 1e-9)
        share = None if gflops is None else gflops / rates[way.dtype]
        steps = int(defaults["steps"])
        rows.append(FamilyRow(key, batch, steps, way.name, way.dtype, seconds, measured[0] / seconds, gflops, share))
    return rows


def plain_work(key: str, backbone: Backbone, requests: Sequence[SequenceRequest], **draw: Any) -> Callable[[], Tensor]:
    """The plain loop over a copy of the network as a checkpoint holds it, for requests that share their groups."""
    network = copy.deepcopy(backbone)
    as_published(network)
    spec, sampling = backbone.spec, requests[0].sampling
    classes = [int(request.condition_ids[0]) for request in requests if isinstance(request.condition_ids, tuple)]
    plans = [
        make_plan(r.plan, spec.grid, seed=r.seed, image_index=r.image_index, published=spec.published_groups)
        for r in requests
    ]
    ends = (0, *plans[0].group_ends)
    sizes = [end - start for start, end in pairwise(ends)]
    orders = torch.tensor([plan.order for plan in plans])
    loop = PLAIN_LOOPS[key](network, classes, spec.condition_vocab - 1, sampling.guidance)
    return partial(loop.run, orders, sizes, **draw)


def _engine_way(
    name: str,
    backbone: Backbone,
    dtype: torch.dtype,
    packing: Packing,
    requests: Sequence[SequenceRequest],
    clock: Clock,
) -> _Way:
    network = fastest(in_number_format(copy.deepcopy(backbone), dtype), packing)
    count = LinearCount(clock.now)
    count.watch(network)
    engine = Engine(
        network, (backbone.spec.condition_vocab - 1,), EngineConfig(2 * len(requests), packing=Packing(NEVER))
    )

    def work() -> None:
        count.clear()
        for request in requests:
            engine.add(request)
        while engine.has_work:
            engine.step()

    return _Way(name, str(dtype).removeprefix("torch."), work, count)
