"""One fixed request among random ones, again and again: in any batch and any slot it is the same picture.

Real backbone, fp32 on the CPU. Beside the needle everything differs from round to round: how many pictures run, their
orders, group sizes and guidance, who arrived before it and so in which slot it is, and who leaves meanwhile.
"""

import random

import pytest

from oar_core.engine.engine import Engine
from oar_core.engine.events import SequenceFinished
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from tests.engine.backbones import UNCONDITIONAL, tiny_backbone
from tests.engine.requests import diverse_requests, make_request

ROUNDS = 300
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
    needle = SequenceRequest(
        NEEDLE, plain.condition_ids, plain.seed, plain.image_index, plain.plan, plain.sampling, plain.known
    )
    assert needle.sampling.is_guided
    expected = generate(tiny_backbone(), [needle], UNCONDITIONAL)[0]
    rng, haystack = random.Random(5), diverse_requests(30)
    engine = Engine(tiny_backbone(), UNCONDITIONAL, num_slots=24)
    for number in range(ROUNDS):
        company = rng.sample(haystack, rng.randrange(0, 9))
        assert made_in_company(engine, needle, company, rng) == expected, f"round {number}"


def test_another_seed_is_another_picture():
    """What the needle shows would hold of a constant too."""
    first, second = (make_request(number, order="random", steps=5) for number in (4, 16))
    assert first.sampling == second.sampling
    assert generate(tiny_backbone(), [first], UNCONDITIONAL) != generate(tiny_backbone(), [second], UNCONDITIONAL)
