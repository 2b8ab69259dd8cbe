"""One fixed request among random ones, again and again: in any batch and any slot it is the same picture.

Real backbone, fp32 on the CPU. Beside the needle everything differs from round to round: how many pictures run, their
orders, group sizes and guidance, who arrived before it and so in which slot it is, and who leaves meanwhile.
"""

import copy
import dataclasses
import random

import pytest
import torch

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import PatchesDecoded, SequenceFinished
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from tests.engine.backbones import UNCONDITIONAL, tiny_backbone
from tests.engine.requests import diverse_requests, make_request

ROUNDS = 200
NEEDLE = "needle"


def made_in_company(engine: Engine, needle: SequenceRequest, company: list[SequenceRequest], rng: random.Random):
    """The needle's tokens; the engine is left with whatever runs."""
    arrivals = [*company, needle]
    rng.shuffle(arrivals)
    while True:
        for _ in range(min(len(arrivals), rng.randrange(1, 5))):
            request = arrivals.pop()
            engine.abort(request.id)  # of an earlier round
            engine.add(request)
        for event in engine.step():
            if isinstance(event, SequenceFinished) and event.sequence_id == needle.id:
                return event.token_ids


@pytest.mark.parametrize("order", ["random", "confidence"])
def test_the_needle_is_always_the_same(order):
    plain = make_request(4, order=order, steps=5)  # guided, with top-k
    needle = dataclasses.replace(plain, id=NEEDLE)
    assert needle.sampling.is_guided
    expected = generate(tiny_backbone(), [needle], UNCONDITIONAL)[0]
    rng, haystack = random.Random(5), diverse_requests(30)
    engine = Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(num_slots=24))
    for number in range(ROUNDS):
        company = rng.sample(haystack, rng.randrange(0, 9))
        assert made_in_company(engine, needle, company, rng) == expected, f"round {number}"


def test_another_seed_is_another_picture():
    """What the needle shows would hold of a constant too."""
    first = make_request(4, order="random", steps=5)
    second = dataclasses.replace(first, seed=5)
    assert generate(tiny_backbone(), [first], UNCONDITIONAL) != generate(tiny_backbone(), [second], UNCONDITIONAL)


class TestDeterministic:
    """To the last bit, also in bf16, where company otherwise shows."""

    def test_the_confidences_are_equal_to_the_last_bit(self):
        backbone = copy.deepcopy(tiny_backbone()).to(torch.bfloat16)
        needle = dataclasses.replace(make_request(4, order="random", steps=5), id=NEEDLE)
        rng, haystack = random.Random(6), diverse_requests(30)
        engine = Engine(backbone, UNCONDITIONAL, EngineConfig(num_slots=24, is_deterministic=True))
        seen = set()
        for _ in range(12):
            arrivals = [*rng.sample(haystack, rng.randrange(0, 9)), needle]
            rng.shuffle(arrivals)
            for request in arrivals:
                engine.abort(request.id)
                engine.add(request)
            patches = []
            while engine.has_work:
                for event in engine.step():
                    if isinstance(event, PatchesDecoded) and event.sequence_id == NEEDLE:
                        patches += event.patches
            seen.add(tuple(patches))
        assert len(seen) == 1
