"""How far each part of a picture is from what the machine allows (roofline, Williams et al. 2009).

The limit of a part is the greater of its operations over the machine's matrix rate and its least bytes over the
machine's read bandwidth, both measured here. What else there is to do (sorting, noise, PNG) is in no limit.
"""

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor, nn

from oar_core.engine.calibration import Calibration, words
from oar_core.engine.model_runner import fastest
from oar_core.models.base import Commit, Query
from oar_core.models.model import to_pixels
from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.oar.vqgan import VQGAN
from oar_core.nn.packed import Int8Linear, PackedLinear
from oar_core.order.rules import FIXED
from oar_core.sampling.decode import DecodeRow, Slots, decode_step
from oar_core.sampling.guidance import guide
from oar_core.sampling.prefill import PrefillRow, prefill
from oar_core.sampling.sampler import SamplingRows
from oar_lab.bench.clock import Clock, Setting
from oar_lab.bench.counts import Work, commit_work, decode_work, prefill_work, query_work, sampling_work
from oar_lab.bench.subject import Subject
from oar_lab.bench.table import table

MATRIX_SIDE = 1024
BANDWIDTH_BYTES = 128 << 20
RATE_REPEATS = 7


@dataclass(frozen=True)
class Rate:
    dtype: str
    threads: int
    gflops: float  # of a square matrix product
    gbytes: float  # read a second, by an fp32 matrix-vector product


@dataclass(frozen=True)
class RooflinePart:
    name: str
    calls: int  # a picture
    gflop: float  # a call
    mbytes: float  # a call, at least
    limit_ms: float
    bound: str  # what sets the limit: compute or memory
    measured_ms: float
    matrix_share: float  # its operations a second / the machine's matrix rate

    @property
    def ratio(self) -> float:
        return self.measured_ms / self.limit_ms if self.limit_ms else float("inf")


@dataclass(frozen=True)
class RooflineReport:
    """All parts of `batch` guided pictures at once, half-way through their ranks; a step's parts count with it."""

    model: str
    batch: int
    steps: int
    rates: list[Rate]
    parts: list[RooflinePart]
    picture_ms: float  # measured, a picture
    picture_limit_ms: float
    calibration: Calibration | None  # what a worker would choose here; None where it would not ask
    setting: Setting

    def table(self) -> str:
        rates = table(
            ("dtype", "threads", "GFLOP/s", "GB/s"), ((r.dtype, r.threads, r.gflops, r.gbytes) for r in self.rates)
        )
        parts = table(
            (
                "part",
                "calls a picture",
                "GFLOP",
                "MB",
                "bound",
                "limit ms",
                "measured ms",
                "measured / limit",
                "of the matrix rate",
            ),
            (
                (p.name, p.calls, p.gflop, p.mbytes, p.bound, p.limit_ms, p.measured_ms, p.ratio, p.matrix_share)
                for p in self.parts
            ),
        )
        ratio = self.picture_ms / self.picture_limit_ms
        total = f"A picture: {self.picture_ms:.1f} ms, limit {self.picture_limit_ms:.1f} ms, ratio {ratio:.2f}."
        chosen = self.calibration
        calibrated = "" if chosen is None else f"\n\nCalibration: {words(chosen)}."
        return f"{rates}\n\n{parts}\n\n{total}{calibrated}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_rates(device: torch.device, threads: list[int]) -> list[Rate]:
    """Of fp32 and bf16, and of int8 on a CPU, for each number of threads, which is left as it was."""
    before = torch.get_num_threads()
    try:
        return [rate for count in threads for rate in _rates(device, count)]
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def _rates(device: torch.device, threads: int) -> list[Rate]:
    torch.set_num_threads(threads)
    clock = Clock(device)
    square = torch.randn(MATRIX_SIDE, MATRIX_SIDE, device=device)
    tall = torch.randn(BANDWIDTH_BYTES // 4 // MATRIX_SIDE, MATRIX_SIDE, device=device)
    gbytes = 1e-9 * BANDWIDTH_BYTES / clock.least(lambda: tall @ square[0], RATE_REPEATS)
    rates: list[Rate] = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = square.to(dtype)
        seconds = clock.least(lambda matrix=matrix: matrix @ matrix, RATE_REPEATS)
        rates.append(Rate(str(dtype).removeprefix("torch."), threads, 2e-9 * MATRIX_SIDE**3 / seconds, gbytes))
    if device.type == "cpu":
        whole = square.to(torch.int8)
        seconds = clock.least(lambda: torch.ops.aten._int_mm(whole, whole), RATE_REPEATS)
        rates.append(Rate("int8", threads, 2e-9 * MATRIX_SIDE**3 / seconds, gbytes))
    return rates


def measure_roofline(
    subject: Subject, *, batch: int, steps: int | None, repeats: int, is_step_alone: bool = False
) -> RooflineReport:
    """`is_step_alone` leaves out what comes before and after the steps: of a large model, that takes minutes."""
    clock = Clock(subject.device)
    plan_steps = subject.with_steps(steps).steps or subject.backbone.spec.num_tokens
    current = torch.get_num_threads()
    rates = measure_rates(subject.device, sorted({1, current}))
    name = str(subject.dtype).removeprefix("torch.")
    usual = next(rate for rate in rates if rate.threads == current and rate.dtype == name)
    exact = next(rate for rate in rates if rate.threads == current and rate.dtype == "float32")
    bench = _Bench(subject, batch, plan_steps)
    parts = [
        _part(name, calls, work, exact if part_is_exact else usual, clock.median(run, repeats))
        for name, calls, work, part_is_exact, run in bench.parts()
        if not is_step_alone or name.startswith(("step", "of it"))
    ]
    return RooflineReport(
        model=subject.name,
        batch=batch,
        steps=plan_steps,
        rates=rates,
        parts=parts,
        picture_ms=sum(part.calls * part.measured_ms for part in parts) / batch,
        picture_limit_ms=sum(part.calls * part.limit_ms for part in parts) / batch,
        calibration=_calibration(subject),
        setting=clock.setting(subject.dtype),
    )


def _calibration(subject: Subject) -> Calibration | None:
    if subject.device.type != "cpu" or subject.dtype is not torch.float32:
        return None
    return Calibration.measure(subject.backbone, (torch.float32, torch.bfloat16))


def _part(name: str, calls: int, work: Work, rate: Rate, seconds: float) -> RooflinePart:
    compute, memory = work.flops / rate.gflops / 1e6, work.num_bytes / rate.gbytes / 1e6
    return RooflinePart(
        name=name,
        calls=calls,
        gflop=work.flops / 1e9,
        mbytes=work.num_bytes / 1e6,
        limit_ms=max(compute, memory),
        bound="compute" if compute >= memory else "memory",
        measured_ms=1e3 * seconds,
        matrix_share=work.flops / rate.gflops / 1e9 / seconds,
    )


class _Bench:
    """A cache of `batch` guided pictures half-way through their ranks, and one call of each part."""

    def __init__(self, subject: Subject, batch: int, steps: int) -> None:
        config = cast(OarBackbone, subject.backbone).config
        self.subject, self.batch, self.steps = subject, batch, steps
        self.backbone = cast(OarBackbone, fastest(subject.backbone))
        self.group = max(1, round(config.num_tokens / steps))
        self.known = config.num_tokens // 2
        texts = [subject.prompts[picture % len(subject.prompts)] for picture in range(batch)]
        self.conditions = [ids for text in texts for ids in (text, subject.unconditional_ids)]
        self.cache = subject.backbone.new_cache(2 * batch)
        self.slots = torch.arange(2 * batch)
        self.logits = torch.randn(batch * self.group, config.vocab_size, device=subject.device)
        token_ids = torch.randint(config.vocab_size, (1, config.num_tokens), generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            self.pixels = to_pixels(subject.tokenizer.decode(token_ids.to(subject.device)))[0]
        self.products = self._products()

    def parts(self) -> list[tuple[str, int, Work, bool, Callable[[], object]]]:
        """Name, calls a picture (0: detail of another), work, whether it runs in fp32 always, and one call."""
        config, size = cast(OarBackbone, self.subject.backbone).config, self.subject.dtype.itemsize
        rows, lengths = 2 * self.batch, [len(ids) for ids in self.conditions]
        entries = round(sum(lengths) / rows) + self.known
        commit = commit_work(config, rows, self.group, entries, size)
        query = query_work(config, rows, self.group, entries, size)
        linear = commit_work(config, rows, self.group, 0, size) + query_work(config, rows, self.group, 0, size)
        sampling = sampling_work(config, rows, self.group)
        picture = Work(0, self.pixels.nbytes)
        return [
            ("prefill", 1, prefill_work(config, lengths, size), False, lambda: self.prefill(0)),
            ("step", self.steps, commit + query + sampling, False, self.step),
            ("of it: commit", 0, commit, False, self.commit),
            ("of it: query", 0, query, False, self.query),
            ("of it: linear layers", 0, linear, False, self.multiply),
            ("of it: sampling", 0, sampling, True, self.sample),
            ("decode", 1, decode_work(cast(VQGAN, self.subject.tokenizer).config, self.batch), True, self.decode),
            ("PNG", self.batch, picture, True, lambda: encode(self.pixels, "PNG")),
            ("WebP", 0, picture, True, lambda: encode(self.pixels, "WEBP")),
        ]

    def prefill(self, known: int) -> None:
        positions = range(known)
        rows = [PrefillRow(slot, ids, positions, [0] * known) for slot, ids in enumerate(self.conditions)]
        prefill(self.backbone, self.cache, rows)

    def step(self) -> None:
        self._half_way()
        new, query = self._positions()
        rows = [
            DecodeRow(
                Slots(2 * picture, 2 * picture + 1),
                new,
                [0] * self.group,
                query,
                self.group,
                FIXED,
                self.subject.sampling,
                picture,
            )
            for picture in range(self.batch)
        ]
        decode_step(self.backbone, self.cache, rows, draw=self.subject.draw)

    def commit(self) -> None:
        self._half_way()
        positions = self._table(self._positions()[0])
        counts = torch.full((len(positions),), self.group)
        nothing = Query.grid(positions[:, :0])
        self.backbone.step(self.cache, self.slots, Commit(torch.zeros_like(positions), positions, counts), nothing)

    def query(self) -> None:
        self._half_way()
        positions = self._table(self._positions()[1])
        nothing = Commit(positions[:, :0], positions[:, :0], torch.zeros(len(positions), dtype=torch.long))
        self.backbone.step(self.cache, self.slots, nothing, Query.grid(positions))

    @torch.inference_mode()
    def multiply(self) -> None:
        """All linear layers of a step, one after another, and nothing between them."""
        for layer, x in self.products:
            layer(x)

    def _products(self) -> list[tuple[nn.Module, Tensor]]:
        """The linear layers that a step passes, and what they were given."""
        products: list[tuple[nn.Module, Tensor]] = []

        def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            products.append((layer, inputs[0]))

        kinds = nn.Linear | PackedLinear | Int8Linear
        layers = [layer for layer in self.backbone.modules() if isinstance(layer, kinds)]
        handles = [layer.register_forward_pre_hook(note) for layer in layers]
        self.prefill(self.known)
        products.clear()
        self.step()
        for handle in handles:
            handle.remove()
        return products

    @torch.inference_mode()
    def sample(self) -> None:
        """Guidance, truncation, noise, draw and confidence."""
        count, vocab_size = self.logits.shape
        params = SamplingRows.stack([self.subject.sampling] * count, vocab_size, self.logits.device)
        logits = guide(self.logits[:, None], self.logits[:, None], params.guidance).squeeze(1)
        places = torch.arange(count, device=self.logits.device)
        self.subject.draw(logits, places, places.clone(), params.of_queries(places)).confidences.cpu()

    @torch.inference_mode()
    def decode(self) -> None:
        token_ids = torch.zeros(self.batch, self.subject.backbone.spec.num_tokens, dtype=torch.long)
        to_pixels(self.subject.tokenizer.decode(token_ids.to(self.subject.device)))

    def _half_way(self) -> None:
        """As many entries as half of the ranks leave, whatever they hold."""
        self.cache.lengths.copy_(torch.tensor([len(ids) + self.known - self.group for ids in self.conditions]))

    def _positions(self) -> tuple[list[int], list[int]]:
        return [*range(self.known - self.group, self.known)], [*range(self.known, self.known + self.group)]

    def _table(self, positions: list[int]) -> Int[Tensor, "B G"]:
        return torch.tensor([positions] * len(self.slots), device=self.subject.device)


def encode(pixels: UInt8[np.ndarray, "Y X 3"], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()
