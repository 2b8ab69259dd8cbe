"""Claims of the study, each checked against the figures that are there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from oar_core.order.plan import ADAPTIVE
from oar_lab.eval.arms import Arm, paired
from oar_lab.study.study_arms import ANY_ORDER, CONSENSUS, OAR, OAR_POLICY, OAR_SHORTER, OAR_SHORTLIST, RASTER, growing

FEW_STEPS = 16
LOSS = 0.02  # of FD-eval, that counts as none
PSNR = {"sprites-64": 28.0}
USUAL_PSNR = 25.0
FD_EVAL = ("distances", "fd_eval")  # the paths of two figures in a report
FD_REC = ("fd_to_reconstructions",)
OURS = (OAR, OAR_POLICY, OAR_SHORTLIST, CONSENSUS)  # the model's own order, in four ways


@dataclass(frozen=True)
class StudyClaim:
    """`is_met` is None where figures are missing; FD-eval decides, `by_rec` tells the same change of FD-rec."""

    text: str
    aim: str
    measured: str
    is_met: bool | None
    by_rec: str = ""


@dataclass(frozen=True)
class Figures:
    """The arms of one data set, to be looked up."""

    arms: tuple[Arm, ...]

    def find(self, label: str, steps: int | None) -> Arm | None:
        for arm in self.arms:
            plan = arm.first["settings"]["plan"]
            if (arm.label, plan["steps"]) == (label, steps) and plan["group_sizes"] != ADAPTIVE:
                return arm
        return None

    def fixed(self, label: str) -> list[Arm]:
        return [arm for arm in self.arms if arm.label == label and not is_adaptive(arm)]

    def adaptive(self, label: str) -> list[Arm]:
        return [arm for arm in self.arms if arm.label == label and is_adaptive(arm)]


def is_adaptive(arm: Arm) -> bool:
    return arm.first["settings"]["plan"]["group_sizes"] == ADAPTIVE


def distance(arm: Arm) -> float:
    return arm.mean(*FD_EVAL)


def claims(arms: Sequence[Arm]) -> list[StudyClaim]:
    found = Figures(tuple(arms))
    return [*_quality(found), *_few_steps(found), *_growing_quality(found), *_policy(found), *_adaptive(found),
            _agreement(found), *_tokenizer(found)]  # fmt: skip


def _quality(found: Figures) -> Iterator[StudyClaim]:
    for label in OURS:
        yield _compared(
            f"{label}, against any-order in random order, one token a step", "at least 15 % less",
            found.find(label, None), found.find(ANY_ORDER, None), lambda change: change <= -0.15,
        )  # fmt: skip
    for label in OURS:
        yield _compared(
            f"{label}, against annealed raster, one token a step", "less",
            found.find(label, None), found.find(RASTER, None), lambda change: change < 0,
        )  # fmt: skip
    best = min(found.fixed(RASTER), key=distance, default=None)
    for label in OURS:
        yield _compared(
            f"{label}, {FEW_STEPS} steps, against annealed raster's best", "less",
            found.find(label, FEW_STEPS), best, lambda change: change < 0,
        )  # fmt: skip


def _few_steps(found: Figures) -> Iterator[StudyClaim]:
    for label in OURS:
        yield _compared(
            f"{label}, {FEW_STEPS} steps, against one token a step", "at most 5 % more",
            found.find(label, FEW_STEPS), found.find(label, None), lambda change: change <= 0.05,
        )  # fmt: skip


def _growing_quality(found: Figures) -> Iterator[StudyClaim]:
    """The same where all guidance grows, of what was measured so."""
    rival, raster = found.find(growing(ANY_ORDER), None), min(found.fixed(growing(RASTER)), key=distance, default=None)
    for label, steps in product(OURS, (None, FEW_STEPS)):
        arm = found.find(growing(label), steps)
        if arm is None:
            continue
        named = f"{growing(label)}, {'one token a step' if steps is None else f'{steps} steps'}"
        if rival is not None:
            yield _compared(f"{named}, against random order under the same", "at least 15 % less", arm, rival,
                            lambda change: change <= -0.15)  # fmt: skip
        if raster is not None:
            yield _compared(f"{named}, against annealed raster's best under the same", "less", arm, raster,
                            lambda change: change < 0)  # fmt: skip


def _policy(found: Figures) -> Iterator[StudyClaim]:
    aim = "at most 2 % more, of a tenth of the queries"
    for label in (OAR_POLICY, OAR_SHORTLIST, OAR_SHORTER):
        text = f"{label}, against scoring every position, one token a step"
        policy, scored = found.find(label, None), found.find(OAR, None)
        if policy is None or scored is None:
            yield StudyClaim(text, aim, "not measured", None)
            continue
        change = _change(policy, scored)
        share = policy.mean("cost", "query_evaluations") / scored.mean("cost", "query_evaluations")
        measured_text = f"{100 * change:+.1f} %, {100 * share:.1f} % of the queries"
        yield StudyClaim(
            text, aim, measured_text, change <= 0.02 and share <= 0.1, _change_text(policy, scored, FD_REC)
        )


def _adaptive(found: Figures) -> Iterator[StudyClaim]:
    """Picks, among adaptive groups that lose at most 2 % to one token a step, those of the fewest steps."""
    texts = (
        ("adaptive groups that lose at most 2 % to one token a step", "at most a quarter of the steps"),
        ("fixed group sizes that lose as little, against these", "at least 1.5 times the steps"),
    )
    reference, adaptive = found.find(OAR_POLICY, None), found.adaptive(OAR_POLICY)
    if reference is None or not adaptive:
        yield from (StudyClaim(*text, "not measured", None) for text in texts)
        return
    steps = _steps(reference)
    good = min((arm for arm in adaptive if _change(arm, reference) <= LOSS), key=_steps, default=None)
    if good is None:
        best = min(adaptive, key=lambda arm: _change(arm, reference))
        measured_text = f"none; the best is {100 * _change(best, reference):+.1f} % in {_steps(best):.1f} steps"
        yield from (StudyClaim(*text, measured_text, False) for text in texts)
        return
    yield StudyClaim(*texts[0], f"{_steps(good):.1f} of {steps:.0f} steps", _steps(good) <= steps / 4)
    bound = max(LOSS, _change(good, reference))
    equal = min((arm for arm in found.fixed(OAR_POLICY) if _change(arm, reference) <= bound), key=_steps)
    ratio = _steps(equal) / _steps(good)
    yield StudyClaim(*texts[1], f"{_steps(equal):.0f} steps, {ratio:.2f} times as many", ratio >= 1.5)


def _agreement(found: Figures) -> StudyClaim:
    text, aim = f"{OAR_POLICY}, {FEW_STEPS} steps: prompt agreement", "at least 90 % of real pictures"
    arm = found.find(OAR_POLICY, FEW_STEPS)
    if arm is None:
        return StudyClaim(text, aim, "not measured", None)
    share = arm.mean("relative_agreement", "mean")
    return StudyClaim(text, aim, f"{100 * share:.1f} %", share >= 0.9)


def _tokenizer(found: Figures) -> Iterator[StudyClaim]:
    first = found.arms[0].first
    tokenizer, least = first["floors"]["tokenizer"], PSNR.get(first["recipe"], USUAL_PSNR)
    psnr, used = tokenizer["psnr"], tokenizer["codes_used"]
    yield StudyClaim("tokenizer, held-out pictures", f"at least {least:.0f} dB", f"{psnr:.2f} dB", psnr >= least)
    yield StudyClaim("codes used on held-out pictures", "at least 95 %", f"{100 * used:.1f} %", used >= 0.95)


def _compared(text: str, aim: str, arm: Arm | None, rival: Arm | None, is_met: Callable[[float], bool]) -> StudyClaim:
    if arm is None or rival is None:
        return StudyClaim(text, aim, "not measured", None)
    measured_text, by_rec = _change_text(arm, rival, FD_EVAL), _change_text(arm, rival, FD_REC)
    return StudyClaim(text, aim, measured_text, is_met(_change(arm, rival)), by_rec)


def _change(arm: Arm, rival: Arm, figure: Sequence[str] = FD_EVAL) -> float:
    """Over the seeds that both have."""
    arm, rival = paired(arm, rival)
    return arm.mean(*figure) / rival.mean(*figure) - 1


def _change_text(arm: Arm, rival: Arm, figure: Sequence[str]) -> str:
    arm, rival = paired(arm, rival)
    values = f"{arm.cell(*figure)} against {rival.cell(*figure)}"
    return f"{100 * _change(arm, rival, figure):+.1f} % ({values})"


def _steps(arm: Arm) -> float:
    return arm.mean("cost", "mean_steps")
