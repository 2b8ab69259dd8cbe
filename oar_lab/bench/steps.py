"""Measures what few steps save, and what guidance and scoring every position at each step cost."""

from dataclasses import dataclass, replace
from functools import partial

from oar_core.order.plan import POLICY_ORDERS, PlanSpec
from oar_core.order.rules import FIXED, RULES
from oar_core.sampling.request import SequenceRequest
from oar_lab.bench.batching import run_to_end
from oar_lab.bench.clock import Clock, Setting
from oar_lab.bench.subject import Subject
from oar_lab.bench.table import BenchReport, table


@dataclass(frozen=True)
class StepsRow:
    order: str
    steps: int
    guided: str  # for which part of a picture
    queries: int  # of a picture's own row; what the order policy is asked, a small network, comes on top
    seconds: float
    relative: float  # to the first row


@dataclass(frozen=True)
class StepsReport(BenchReport):
    model: str
    batch: int
    rows: list[StepsRow]
    setting: Setting

    def table(self) -> str:
        headers = ("order", "steps", "guided", "queries a picture", f"{self.setting.clock} seconds", "relative")
        return table(headers, ((r.order, r.steps, r.guided, r.queries, r.seconds, r.relative) for r in self.rows))


# With the interval of guidance, or None for no guidance.
GUIDED: dict[str, tuple[float, float] | None] = {"all": (0.0, 1.0), "the middle half": (0.25, 0.75), "nothing": None}


def measure_steps(subject: Subject, *, batch: int, repeats: int) -> StepsReport:
    """A quarter of the steps and one position a step: in the model's default order, in the order policy's and from its
    shortlist, where there is a policy, and in that of confidence. One position a step of the first of these with less
    guidance."""
    clock, length = Clock(subject.device), subject.backbone.spec.num_tokens
    engine = subject.engine(2 * batch)
    few = max(1, length // 4)
    of_policy = POLICY_ORDERS if subject.backbone.has_policy else ()
    orders = tuple(dict.fromkeys([str(subject.plan.order), *of_policy, "confidence"]))
    kinds = [(order, steps, "all") for order in orders for steps in (few, length)]
    kinds += [(orders[0], length, guided) for guided in GUIDED if guided != "all"]
    plans = [PlanSpec(order, steps, "constant") for order, steps, _ in kinds]
    works = [
        partial(run_to_end, engine, subject, _requests(subject, batch, plan, GUIDED[guided]))
        for plan, (_, _, guided) in zip(plans, kinds)
    ]
    measured = clock.medians(works, repeats)
    rows = [
        StepsRow(*kind, _queries(plan, length), seconds, seconds / measured[0])
        for kind, plan, seconds in zip(kinds, plans, measured)
    ]
    return StepsReport(subject.name, batch, rows, clock.setting(subject.dtype))


def _requests(
    subject: Subject, batch: int, plan: PlanSpec, guided: tuple[float, float] | None
) -> list[SequenceRequest]:
    if guided is None:
        sampling = replace(subject.sampling, guidance=1.0)
    else:
        sampling = replace(subject.sampling, guidance_interval=guided)
    return [replace(request, sampling=sampling) for request in subject.requests(batch, plan)]


def _queries(plan: PlanSpec, length: int) -> int:
    """Counts queries of equal groups: each position once; or at each step all that remain, or a shortlist of them."""
    steps = plan.steps or length
    group = length // steps
    left = [length - step * group for step in range(steps)]
    rule = RULES.get(str(plan.order), FIXED)
    return sum(rule.num_asked(count, group, 0, plan.candidates) for count in left)
