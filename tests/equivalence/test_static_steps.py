"""Steps of fixed shape make the pictures that `generate` makes: pads, scratch and old buffers leave no trace."""

import random

import pytest

from oar_core.engine.buckets import Bucket, Buckets
from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import PatchesDecoded, SequenceFinished
from oar_core.engine.static_steps import StaticSteps
from oar_core.sampling.decode import DecodedGroup, DecodeRow, StepLoad
from oar_core.sampling.generate import generate
from tests.engine.backbones import UNCONDITIONAL, tiny_backbone
from tests.engine.requests import diverse_requests, make_request


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
    engine.add(make_request(2, order="raster", steps=1))
    while engine.has_work:
        engine.step()
    assert not any(served)


def test_buckets_are_the_least_that_hold_a_step():
    buckets = Buckets.plan(num_slots=10, num_tokens=64, capacity=100)
    assert buckets == Buckets((1, 2, 4, 8, 10), (1, 2, 4, 8), (32, 64, 96, 100))
    assert buckets.least(3, 3, 26) == Bucket(4, 4, 32)
    assert buckets.least(10, 8, 100) == Bucket(10, 8, 100)
    assert buckets.least(9, 1, 1) == Bucket(10, 1, 32)
    assert buckets.least(1, 9, 1) is None
    assert len(buckets.all()) == 80
    assert buckets.all()[0] == Bucket(10, 8, 100)


def test_few_tokens_have_few_buckets():
    assert Buckets.plan(num_slots=1, num_tokens=1, capacity=3) == Buckets((1,), (1,), (3,))


def test_the_ordinary_engine_has_no_scratch_slot():
    usual, static = (
        Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(4, is_static=flag)).cache_bytes for flag in (False, True)
    )
    assert static * 4 == usual * 5
