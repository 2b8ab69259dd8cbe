"""Distance of each part of a picture from the machine's limits (roofline, Williams et al. 2009).

The limit of a part is the greater of its operations over the machine's matrix rate and its least bytes over the
machine's read bandwidth, both measured here. What else there is to do (sorting, noise, PNG) is in no limit.
"""

from dataclasses import dataclass

import torch

from oar_core.engine.calibration import Calibration, words
from oar_lab.bench.clock import Clock, Setting
from oar_lab.bench.counts import Work
from oar_lab.bench.parts import PictureParts
from oar_lab.bench.subject import Subject
from oar_lab.bench.table import BenchReport, table

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
class RooflineReport(BenchReport):
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


def measure_rates(device: torch.device, threads: list[int]) -> list[Rate]:
    """Measures rates of fp32 and bf16, and of int8 on a CPU, for each number of threads, which is left as it was."""
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
    parts = [
        _part(name, calls, work, exact if part_is_exact else usual, clock.median(run, repeats))
        for name, calls, work, part_is_exact, run in PictureParts(subject, batch, plan_steps).parts()
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
