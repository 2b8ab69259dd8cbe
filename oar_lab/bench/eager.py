"""The engine in each number format, against the plain loop over a network in fp32 as it was trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch

from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.oar.vqgan import VQGAN
from oar_core.models.order_policy import OrderPolicy
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_lab.bench.batching import run_to_end
from oar_lab.bench.clock import Clock, Setting
from oar_lab.bench.subject import Subject
from oar_lab.bench.table import BenchReport, table


@dataclass(frozen=True)
class EagerRow:
    name: str
    dtype: str
    seconds: float
    images_per_second: float
    times_eager: float  # the first row's seconds over these


@dataclass(frozen=True)
class EagerReport(BenchReport):
    model: str
    batch: int
    steps: int
    rows: list[EagerRow]
    setting: Setting

    def table(self) -> str:
        headers = (f"{self.batch} pictures, {self.steps} steps", "dtype", f"{self.setting.clock} seconds")
        rows = ((row.name, row.dtype, row.seconds, row.images_per_second, row.times_eager) for row in self.rows)
        return table((*headers, "pictures/s", "times eager"), rows)


def measure_eager(subjects: Sequence[Subject], *, batch: int, steps: int | None, repeats: int) -> EagerReport:
    """Medians of `repeats` runs in turn, after one that does not count; from requests to pixels. The subjects are one
    model in several number formats, fp32 first."""
    subject = subjects[0]
    plan, clock = subject.with_steps(steps), Clock(subject.device)
    requests = subject.requests(batch, plan)
    kinds, works = [("generate", subject.dtype)], [partial(_generate, subject, *as_trained(subject), requests)]
    for member in subjects:
        kinds.append(("engine, compiled draw" if member.is_compiled else "engine", member.dtype))
        works.append(partial(run_to_end, member.engine(2 * batch), member, requests))
    measured = clock.medians(works, repeats)
    rows = [
        EagerRow(name, str(dtype).removeprefix("torch."), seconds, batch / seconds, measured[0] / seconds)
        for (name, dtype), seconds in zip(kinds, measured)
    ]
    length = subject.backbone.spec.num_tokens
    return EagerReport(subject.name, batch, plan.steps or length, rows, clock.setting(subject.dtype))


def as_trained(subject: Subject) -> tuple[OarBackbone, VQGAN]:
    """The networks of a subject without anything that is done to them for speed: PyTorch's own layers, the
    weights as a checkpoint holds them."""
    trained, tokenizer_ = cast(OarBackbone, subject.backbone), cast(VQGAN, subject.tokenizer)
    backbone = OarBackbone(trained.config)
    if trained.policy is not None:
        backbone.policy = OrderPolicy(trained.policy.config, trained.config)
    backbone.order_score = trained.order_score
    backbone.load_state_dict(trained.state_dict())
    tokenizer = VQGAN(tokenizer_.config)
    tokenizer.load_state_dict(subject.tokenizer.state_dict())
    return backbone.to(subject.device).eval(), tokenizer.to(subject.device).eval()


@torch.inference_mode()
def _generate(subject: Subject, backbone: OarBackbone, tokenizer: VQGAN, requests: Sequence[SequenceRequest]) -> None:
    token_ids = generate(backbone, requests, subject.unconditional_ids)
    tokenizer.decode(torch.tensor(token_ids, device=subject.device))
