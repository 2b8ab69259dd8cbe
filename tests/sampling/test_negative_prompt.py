"""Guidance away from a negative prompt: its ids replace the unconditional prefix, and nothing else changes."""

from dataclasses import replace

import pytest

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.errors import PromptError, PromptLengthError
from oar_core.sampling.generate import generate
from oar_core.sampling.request import KnownTokens
from oar_core.sampling.sampler import SamplingParams
from tests.engine.backbones import TINY, UNCONDITIONAL, tiny_backbone
from tests.engine.requests import decoded_patches, made_by, make_request

NEGATIVE = (9, 4, 1)
GUIDED = SamplingParams(guidance=3.0)
PLAIN = replace(make_request(2, order="random", steps=6), sampling=GUIDED)
STEERED = replace(PLAIN, negative_ids=NEGATIVE)


def test_it_stands_for_the_unconditional_prefix() -> None:
    backbone = tiny_backbone()
    (steered,) = generate(backbone, [STEERED], UNCONDITIONAL)
    assert [steered] == generate(backbone, [PLAIN], NEGATIVE)
    assert [steered] != generate(backbone, [PLAIN], UNCONDITIONAL)


def test_without_guidance_it_does_nothing() -> None:
    backbone, off = tiny_backbone(), SamplingParams()
    requests = [replace(request, sampling=off) for request in (PLAIN, STEERED)]
    one, other = (generate(backbone, [request], UNCONDITIONAL) for request in requests)
    assert one == other


@pytest.mark.parametrize("is_deterministic", [False, True])
def test_pictures_with_and_without_one_share_an_engine(is_deterministic: bool) -> None:
    backbone = tiny_backbone()
    requests = [
        replace(request, id=f"{name}{seed}", seed=seed)
        for seed in range(4)
        for name, request in (("plain", PLAIN), ("steered", STEERED))
    ]
    engine = Engine(backbone, UNCONDITIONAL, EngineConfig(6, max_prefill=8, is_deterministic=is_deterministic))
    made = made_by(engine, requests)
    assert made == {request.id: generate(backbone, [request], UNCONDITIONAL)[0] for request in requests}


@pytest.mark.parametrize("rank", [1, 7, 19])
def test_a_picture_that_was_interrupted_goes_on_as_the_same_one(rank: int) -> None:
    backbone = tiny_backbone()
    patches = decoded_patches(backbone, STEERED)[:rank]
    positions = tuple(patch.position for patch in patches)
    known = KnownTokens(positions, tuple(patch.token_id for patch in patches), num_resumed=rank)
    made = made_by(Engine(backbone, UNCONDITIONAL, EngineConfig(2)), [replace(STEERED, known=known)])
    assert [made[STEERED.id]] == generate(backbone, [STEERED], UNCONDITIONAL)


def test_ids_that_are_no_condition_name_the_field() -> None:
    engine = Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(2))
    for ids, kind in (((), PromptError), ((99,), PromptError), ((1,) * (TINY.max_condition + 1), PromptLengthError)):
        with pytest.raises(kind) as error:
            engine.add(replace(PLAIN, negative_ids=ids))
        assert error.value.field == "negative_prompt"
