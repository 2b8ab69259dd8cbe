"""Steps of fixed shape make the pictures that `generate` makes: pads, scratch and old buffers leave no trace."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from oar_core.engine import buckets
from oar_core.engine.buckets import Bucket, Buckets
from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import PatchesDecoded, SequenceFinished
from oar_core.engine.static_steps import StaticSteps
from oar_core.models.lpd.groups import lpd_groups
from oar_core.models.oar.backbone import OarBackbone
from oar_core.order.plan import PlanSpec, make_plan
from oar_core.sampling.decode import DecodedGroup, DecodeRow, StepLoad
from oar_core.sampling.generate import generate
from tests.engine.backbones import TINY, UNCONDITIONAL, tiny_backbone
from tests.engine.requests import diverse_requests, made_by, make_request


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each step found a bucket."""
    outcomes: list[bool] = []
    decode = StaticSteps.decode

    def noted(self: StaticSteps, rows: list[DecodeRow], load: StepLoad) -> list[DecodedGroup] | None:
        groups = decode(self, rows, load)
        outcomes.append(groups is not None)
        return groups

    monkeypatch.setattr(StaticSteps, "decode", noted)
    return outcomes


@pytest.mark.parametrize("num_slots", [2, 7, 64])
def test_the_engine_equals_generate_whatever_arrives_and_leaves_when(num_slots, served):
    requests = diverse_requests(21)
    fixed = [
        make_request(100 + i, order=o, steps=s)
        for i, (o, s) in enumerate((o, s) for o in ("raster", "halton") for s in (4, 9, None))
    ]
    requests += fixed
    truth = {request.id: generate(tiny_backbone(), [request], UNCONDITIONAL)[0] for request in requests}
    rng = random.Random(num_slots)
    arrivals = rng.sample(requests[:21], 21)
    engine = Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(num_slots, is_static=True))
    made: dict[str, tuple[int, ...]] = {}
    for late in ([], fixed):
        arrivals += late
        while arrivals or engine.has_work:
            for _ in range(min(len(arrivals), rng.randrange(4))):
                engine.add(arrivals.pop())
            events = engine.step()
            made |= {event.sequence_id: event.token_ids for event in events if isinstance(event, SequenceFinished)}
    assert made == truth
    assert served.count(True) > 10


def test_a_step_tells_the_confidences_of_the_ordinary_one():
    told = []
    for is_static in (False, True):
        engine = Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(5, is_static=is_static))
        for number in range(2):
            engine.add(make_request(number, order="spiral", steps=6))
        patches = []
        while engine.has_work:
            patches += [p for e in engine.step() if isinstance(e, PatchesDecoded) for p in e.patches]
        told.append(patches)
    assert [(p.rank, p.position, p.token_id) for p in told[0]] == [(p.rank, p.position, p.token_id) for p in told[1]]
    assert [p.confidence for p in told[1]] == pytest.approx([p.confidence for p in told[0]], abs=1e-4)


def test_a_step_that_no_bucket_holds_takes_the_ordinary_way(served):
    engine = Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(4, is_static=True))
    engine.add(make_request(1, order="confidence", steps=3))
    while engine.has_work:
        engine.step()
    assert not any(served)


def test_a_step_with_more_places_than_are_prepared_takes_the_ordinary_way(served, monkeypatch):
    monkeypatch.setattr(buckets, "MAX_PLACES", 1)
    engine = Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(4, is_static=True))
    engine.add(make_request(2, order="raster", steps=3))
    while engine.has_work:
        engine.step()
    assert not any(served)


def test_buckets_are_the_least_that_hold_a_step():
    planned = Buckets.plan(num_slots=20, num_tokens=64, capacity=100)
    halves, whole = (56, 100), (100,)
    assert planned == Buckets(
        (1, 2, 4, 8, 16, 20),
        (1, 2, 4, 8, 12, 16, 20, 24, 28, 32),
        {1: whole, 2: whole, 4: whole, 8: whole, 16: halves, 20: halves},
    )
    assert planned.least(3, 3, 26) == Bucket(4, 4, 100)
    assert planned.least(10, 9, 26) == Bucket(16, 12, 56)
    assert planned.least(20, 32, 100) == Bucket(20, 32, 100)
    assert planned.least(1, 33, 1) is None
    assert len(planned.all()) == 80
    assert planned.all()[0] == Bucket(20, 32, 100)


def test_few_tokens_have_few_buckets():
    assert Buckets.plan(num_slots=1, num_tokens=1, capacity=3) == Buckets((1,), (1,), {1: (3,)})


@pytest.mark.parametrize("published", [None, lpd_groups])
@pytest.mark.parametrize("pictures", [1, 8, 32])
def test_all_twenty_steps_of_256_positions_have_a_bucket(published, pictures):
    """With few pads, whose linear layers cost what those of tokens do."""
    plan = make_plan(
        PlanSpec("halton", 20, "cosine" if published is None else "published"), (16, 16), seed=0, image_index=0,
        published=published,
    )  # fmt: skip
    planned, ends = Buckets.plan(num_slots=64, num_tokens=256, capacity=257), (0, *plan.group_ends)
    before, places = 0, 0
    for start, end in pairwise(ends):
        bucket = planned.least(2 * pictures, max(before, end - start), 1 + start)
        assert bucket is not None
        before = end - start
        places += bucket.group
    assert len(ends) == 21
    assert places < 1.1 * 256
    assert len(planned.all()) < 150


def test_every_step_of_a_large_grid_is_static(served):
    torch.manual_seed(0)
    backbone = OarBackbone(replace(TINY, grid=(16, 16))).eval()
    engine = Engine(backbone, UNCONDITIONAL, EngineConfig(4, is_static=True))
    requests = [make_request(number, order="halton", steps=20) for number in range(2)]
    truth = {request.id: generate(backbone, [request], UNCONDITIONAL)[0] for request in requests}
    assert made_by(engine, requests) == truth
    assert served == [True] * 20


def test_the_ordinary_engine_has_no_scratch_slot():
    usual, static = (
        Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(4, is_static=flag)).cache_bytes for flag in (False, True)
    )
    assert static * 4 == usual * 5
