"""What may not change a picture: company, arrival, slots, interruption. Real backbone, fp32 on the CPU."""

import dataclasses
import math
import random

import pytest
import torch

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import SequenceFinished
from oar_core.errors import RequestError
from oar_core.models.base import Condition
from oar_core.nn.packed import Packing
from oar_core.sampling.generate import generate
from oar_core.sampling.noise import gumbel, noise_key
from oar_core.sampling.progress import Patch
from oar_core.sampling.request import KnownTokens, SequenceRequest
from oar_core.sampling.sampler import SamplingRows, sample
from tests.engine.backbones import UNCONDITIONAL, HashBackbone, tiny_backbone
from tests.engine.requests import ORDERS, decoded_patches, diverse_requests, made_by, make_request


def alone(requests: list[SequenceRequest]) -> dict[str, tuple[int, ...]]:
    return {request.id: generate(tiny_backbone(), [request], UNCONDITIONAL)[0] for request in requests}


@pytest.fixture(scope="module")
def requests() -> list[SequenceRequest]:
    return diverse_requests(21)


@pytest.fixture(scope="module")
def truth(requests) -> dict[str, tuple[int, ...]]:
    return alone(requests)


def test_the_tiny_model_makes_different_pictures(truth):
    assert len(set(truth.values())) == len(truth)


def test_batched_equals_alone(requests, truth):
    assert generate(tiny_backbone(), requests, UNCONDITIONAL) == list(truth.values())


def test_weights_that_are_laid_out_make_the_same_pictures(requests, truth):
    assert (
        made_by(Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(num_slots=16, packing=Packing())), requests)
        == truth
    )


@pytest.mark.parametrize("num_slots", [2, 7, 64])
def test_the_engine_equals_generate_whatever_arrives_and_leaves_when(requests, truth, num_slots):
    rng = random.Random(num_slots)
    arrivals = rng.sample(requests, len(requests))
    doomed = {request.id for request in rng.sample(requests, 5)}
    engine = Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(num_slots))
    made: dict[str, tuple[int, ...]] = {}
    while arrivals or engine.has_work:
        for _ in range(min(len(arrivals), rng.randrange(4))):
            engine.add(arrivals.pop())
        if doomed and rng.random() < 0.3:
            sequence_id = rng.choice(sorted(doomed))
            if engine.abort(sequence_id):
                doomed.remove(sequence_id)
        made |= {event.sequence_id: event.token_ids for event in engine.step() if isinstance(event, SequenceFinished)}
    assert len(made) >= 16
    assert made == {sequence_id: truth[sequence_id] for sequence_id in made}
    assert engine.num_free_slots == num_slots


@pytest.mark.parametrize("given", [(), (13, 0, 6)])
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_a_resumed_picture_equals_the_uninterrupted_one_wherever_it_was_cut(order, given):
    """Six cosine groups: the cuts fall on every boundary and inside every group that has an inside."""
    edit = KnownTokens(given, (7,) * len(given))
    request = make_request(4, order=order, steps=6, known=edit)
    whole = decoded_patches(tiny_backbone(), request)
    for cut in range(len(whole) + 1):
        done = whole[:cut]
        known = KnownTokens(
            (*given, *(patch.position for patch in done)),
            (*edit.token_ids, *(patch.token_id for patch in done)),
            num_resumed=cut,
        )
        rest = decoded_patches(tiny_backbone(), dataclasses.replace(request, known=known))
        assert [(p.rank, p.position, p.token_id) for p in rest] == [
            (p.rank, p.position, p.token_id) for p in whole[cut:]
        ]
        assert [p.confidence for p in rest] == pytest.approx([p.confidence for p in whole[cut:]], abs=1e-4)


def steps_of(request: SequenceRequest) -> list[tuple[int, int, tuple[Patch, ...]]]:
    steps: list[tuple[int, int, tuple[Patch, ...]]] = []
    generate(tiny_backbone(), [request], UNCONDITIONAL, on_step=lambda index, *step: steps.append(step))
    return steps


@pytest.mark.parametrize("given", [(), (13, 0, 6)])
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_an_adaptive_picture_goes_on_after_any_step_as_if_it_had_never_stopped(order, given):
    request = make_request(
        4, order=order, steps=12, group_sizes="adaptive", entropy_bound=5.0, known=KnownTokens(given, (7,) * len(given))
    )
    whole = steps_of(request)
    assert [step for step, _, _ in whole] == list(range(1, len(whole) + 1))
    assert len(whole) < 12
    for cut in range(len(whole) + 1):
        done = [patch for _, _, patches in whole[:cut] for patch in patches]
        known = KnownTokens(
            (*given, *(patch.position for patch in done)),
            (*(7,) * len(given), *(patch.token_id for patch in done)),
            num_resumed=len(done),
            num_steps=cut,
        )
        rest = steps_of(dataclasses.replace(request, known=known))
        assert [(step, steps) for step, steps, _ in rest] == [(step, steps) for step, steps, _ in whole[cut:]]
        assert [(p.rank, p.position, p.token_id) for _, _, patches in rest for p in patches] == [
            (p.rank, p.position, p.token_id) for _, _, patches in whole[cut:] for p in patches
        ]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_an_adaptive_picture_never_takes_more_than_its_steps_and_says_how_many_are_left_at_most(order):
    for steps, bound in ((None, 0.0), (7, 0.0), (7, 3.0), (3, 1.0), (None, 1e4)):
        made = steps_of(make_request(1, order=order, steps=steps, group_sizes="adaptive", entropy_bound=bound))
        promised = [total for _, total, _ in made]
        assert promised == sorted(promised, reverse=True)
        assert promised[-1] == len(made) <= (steps or 20)
        assert bound or len(made) == (steps or 20)
    assert len(made) <= 2


def test_an_adaptive_plan_is_not_resumed_without_the_number_of_its_steps():
    request = make_request(1, order="confidence", group_sizes="adaptive", known=KnownTokens((3,), (1,), num_resumed=1))
    with pytest.raises(RequestError, match="after how many steps"):
        generate(tiny_backbone(), [request], UNCONDITIONAL)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_an_edit_keeps_what_is_given_and_decodes_the_rest(order):
    given = KnownTokens((3, 17, 8), (1, 2, 3))
    request = make_request(5, order=order, steps=4, known=given)
    patches = decoded_patches(tiny_backbone(), request)
    assert sorted(patch.position for patch in patches) == sorted(set(range(20)) - set(given.positions))
    picture = generate(tiny_backbone(), [request], UNCONDITIONAL)[0]
    assert [picture[position] for position in given.positions] == [1, 2, 3]


def test_the_group_sizes_change_the_picture_and_not_which_positions_a_fixed_order_visits():
    one, all_at_once = (
        decoded_patches(HashBackbone(), make_request(order="halton", steps=steps)) for steps in (None, 1)
    )
    assert [p.position for p in one] == [p.position for p in all_at_once]
    assert [p.token_id for p in one] != [p.token_id for p in all_at_once]


def long_prefills(count: int) -> list[SequenceRequest]:
    """Edits that keep most of a picture, and resumed pictures, between plain ones."""
    return [
        make_request(
            index,
            order=ORDERS[index % len(ORDERS)],
            steps=5,
            known=KnownTokens(tuple(range(index % 16)), tuple(range(index % 16))),
        )
        for index in range(count)
    ]


@pytest.mark.parametrize("max_prefill", [1, 4, 7, 1000])
def test_a_prefill_in_chunks_makes_the_pictures_of_one_that_is_whole(max_prefill):
    requests = long_prefills(20)
    engine = Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(12, max_prefill=max_prefill))
    assert made_by(engine, requests) == alone(requests)


@pytest.mark.parametrize("max_prefill", [1, 3])
@pytest.mark.parametrize("cut", [1, 7, 13])
def test_a_resumed_picture_is_prefilled_in_chunks(cut, max_prefill):
    request = make_request(4, order="halton", steps=6)
    done = decoded_patches(tiny_backbone(), request)[:cut]
    known = KnownTokens(tuple(p.position for p in done), tuple(p.token_id for p in done), num_resumed=cut)
    resumed = dataclasses.replace(request, known=known)
    engine = Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(4, max_prefill=max_prefill))
    assert made_by(engine, [resumed]) == alone([request])


def guided(index: int, interval: tuple[float, float], schedule: str, **changes: object) -> SequenceRequest:
    request = make_request(index, **changes)
    sampling = dataclasses.replace(
        request.sampling, guidance=3.0, guidance_interval=interval, guidance_schedule=schedule, temperature=1.0
    )
    return dataclasses.replace(request, sampling=sampling)


INTERVALS = ((0.0, 1.0), (0.3, 0.8), (0.0, 0.4), (0.6, 1.0), (0.97, 1.0))


@pytest.mark.parametrize("max_prefill", [1, 5, 1000])
def test_guidance_of_any_interval_and_schedule_is_the_same_in_the_engine(max_prefill):
    """The unconditional row owes what it missed, and pays it in chunks as well."""
    requests = [
        guided(
            index,
            INTERVALS[index % len(INTERVALS)],
            ("constant", "linear", "cosine")[index % 3],
            order=ORDERS[index % len(ORDERS)],
            steps=(None, 6, 9)[index % 3],
            group_sizes=("cosine", "adaptive", "constant")[index // 3 % 3],
            known=KnownTokens((4, 11, 2), (1, 0, 9)) if index % 4 == 3 else KnownTokens(),
        )
        for index in range(30)
    ]
    engine = Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(14, max_prefill=max_prefill))
    assert made_by(engine, requests) == alone(requests)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("interval", INTERVALS, ids=str)
def test_a_late_guidance_is_that_of_a_picture_whose_unconditional_row_never_slept(interval, schedule):
    """By hand, one position at a time, from logits over fresh caches."""
    request = guided(1, interval, schedule, order="hilbert")
    backbone, params = tiny_backbone(), request.sampling
    patches = decoded_patches(backbone, request)
    order = torch.tensor([[patch.position for patch in patches]])
    tokens = torch.tensor([[patch.token_id for patch in patches]])
    conditional, unconditional = (
        backbone(Condition.stack([ids], torch.device("cpu")), tokens, order)[0]
        for ids in (request.condition_ids, UNCONDITIONAL)
    )
    for rank, patch in enumerate(patches):
        low, high = interval
        share = rank / len(patches)
        ramp = {"constant": 1.0, "linear": share, "cosine": (1 - math.cos(math.pi * share)) / 2}[schedule]
        scale = 1 + 2 * ramp if low <= share < high else 1.0
        logits = unconditional[rank] + scale * (conditional[rank] - unconditional[rank])
        noise = gumbel(torch.tensor([noise_key(request.seed, request.image_index)]), order[:, rank : rank + 1], 24)
        rows = SamplingRows.stack([params], 24, torch.device("cpu"))
        assert sample(logits[None, None], rows, noise[None]).item() == patch.token_id
        assert patch.confidence == pytest.approx(logits.softmax(-1).max().item(), abs=1e-4)


@pytest.mark.parametrize("cut", [0, 3, 8, 9, 15, 19])
def test_a_resumed_picture_is_guided_where_the_whole_one_was(cut):
    request = guided(4, (0.4, 0.8), "linear", order="random", steps=7)
    done = decoded_patches(tiny_backbone(), request)[:cut]
    known = KnownTokens(tuple(p.position for p in done), tuple(p.token_id for p in done), num_resumed=cut)
    assert alone([dataclasses.replace(request, known=known)]) == alone([request])
