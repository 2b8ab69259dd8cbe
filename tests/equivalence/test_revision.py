"""Tokens of a whole picture that are dropped and drawn again: which, from what, and that nothing else changes it."""

import dataclasses
import random

import pytest
import torch

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import EngineEvent, PatchesDecoded, PatchesRevised, SequenceFinished, SequenceStarted
from oar_core.errors import RequestError, StepsError
from oar_core.models.base import Commit, Condition, Query
from oar_core.order.certainty import entropy
from oar_core.sampling.generate import generate
from oar_core.sampling.noise import gumbel, revision_key
from oar_core.sampling.progress import Patch
from oar_core.sampling.request import KnownTokens, SequenceRequest
from oar_core.sampling.sampler import SamplingParams, SamplingRows, sample
from tests.engine.backbones import TINY, UNCONDITIONAL, tiny_backbone
from tests.engine.requests import ORDERS, decoded_patches, made_by, make_request

GIVEN = KnownTokens((13, 0, 6), (7, 7, 7))


def revised_steps(request: SequenceRequest) -> tuple[list[Patch], list[tuple[Patch, ...]], tuple[int, ...]]:
    """What the plan decoded, what each step of the revision drew, and the picture."""
    decoded: list[Patch] = []
    redrawn: list[tuple[Patch, ...]] = []
    (picture,) = generate(
        tiny_backbone(),
        [request],
        UNCONDITIONAL,
        on_step=lambda _index, _step, _steps, patches: decoded.extend(patches),
        on_revision=lambda _index, _step, _steps, patches: redrawn.append(patches),
    )
    return decoded, redrawn, picture


@pytest.mark.parametrize("known", [KnownTokens(), GIVEN], ids=["picture", "edit"])
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_the_most_surprising_tokens_are_drawn_again_and_no_others(order, known):
    plain = make_request(4, order=order, steps=6, known=known)
    decoded, steps, picture = revised_steps(make_request(4, order=order, steps=6, known=known, revise=5))
    assert [(p.position, p.token_id) for p in decoded] == [
        (p.position, p.token_id) for p in decoded_patches(tiny_backbone(), plain)
    ]
    ranked = sorted(decoded, key=lambda patch: (-(patch.surprise or 0), patch.rank))[:5]
    redrawn = [patch for patches in steps for patch in patches]
    assert [len(patches) for patches in steps] == [2, 3]
    assert [p.rank for p in redrawn] == list(range(5))
    assert [p.position for p in redrawn] == [p.position for p in sorted(ranked, key=lambda patch: patch.rank)]
    first = {p.position: p.token_id for p in decoded} | dict(zip(known.positions, known.token_ids))
    assert dict(enumerate(picture)) == first | {p.position: p.token_id for p in redrawn}


def test_a_surprise_is_how_much_less_likely_a_token_is_than_draws_are_on_average():
    request = make_request(0, order="hilbert", revise=3)  # not guided
    decoded, _, _ = revised_steps(request)
    backbone = tiny_backbone()
    order = torch.tensor([[patch.position for patch in decoded]])
    tokens = torch.tensor([[patch.token_id for patch in decoded]])
    logits = backbone(Condition.stack([request.condition_ids], torch.device("cpu")), tokens, order)
    log_probability = logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    expected = (-log_probability - entropy(logits))[0].tolist()
    assert [patch.surprise for patch in decoded] == pytest.approx(expected, abs=2e-4)


def test_they_are_drawn_given_all_that_stay_in_the_order_in_which_these_were_decoded():
    """By hand: guided, from a cache of its own, under noise of its own."""
    request = dataclasses.replace(
        make_request(1, order="halton", steps=6, revise=4), sampling=SamplingParams(guidance=2.5)
    )
    decoded, steps, _ = revised_steps(request)
    dropped = {patch.position for patches in steps for patch in patches}
    kept = [(patch.token_id, patch.position) for patch in decoded if patch.position not in dropped]
    backbone, device = tiny_backbone(), torch.device("cpu")
    for patches in steps:
        positions = torch.tensor([[patch.position for patch in patches]])
        token_ids, places = (torch.tensor([part]) for part in zip(*kept))
        logits: list[torch.Tensor] = []
        for ids in (request.condition_ids, UNCONDITIONAL):
            cache = backbone.new_cache(1)
            commit = Commit(token_ids, places, torch.tensor([len(kept)]))
            backbone.prefill(cache, torch.tensor([0]), Condition.stack([ids], device), commit)
            nothing = Commit(token_ids[:, :0], places[:, :0], torch.tensor([0]))
            logits.append(backbone.step(cache, torch.tensor([0]), nothing, Query.grid(positions)))
        guided = logits[1] + 2.5 * (logits[0] - logits[1])
        noise = gumbel(torch.tensor([revision_key(request.seed, request.image_index)]), positions, TINY.vocab_size)
        rows = SamplingRows.stack([request.sampling], TINY.vocab_size, device)
        assert sample(guided[None], rows, noise)[0].tolist() == [patch.token_id for patch in patches]
        kept += [(patch.token_id, patch.position) for patch in patches]


def diverse(count: int) -> list[SequenceRequest]:
    return [
        make_request(
            index,
            order=ORDERS[index % len(ORDERS)],
            steps=(None, 5, 1, 9)[index % 4],
            group_sizes=("cosine", "adaptive", "constant")[index // 3 % 3],
            known=GIVEN if index % 4 == 3 else KnownTokens(),
            revise=(0, 4, 1, 100)[index % 4],
        )
        for index in range(count)
    ]


@pytest.mark.parametrize(("max_prefill", "is_deterministic"), [(1, False), (7, False), (256, False), (256, True)])
def test_the_engine_equals_generate_whatever_runs_beside_it(max_prefill, is_deterministic):
    requests = diverse(20)
    alone = {request.id: generate(tiny_backbone(), [request], UNCONDITIONAL)[0] for request in requests}
    config = EngineConfig(9, max_prefill=max_prefill, is_deterministic=is_deterministic)
    assert made_by(Engine(tiny_backbone(), UNCONDITIONAL, config), requests) == alone
    assert generate(tiny_backbone(), requests, UNCONDITIONAL) == list(alone.values())


def test_static_steps_make_the_same_pictures():
    requests = [make_request(index, order="halton", steps=6, revise=4) for index in range(6)]
    alone = {request.id: generate(tiny_backbone(), [request], UNCONDITIONAL)[0] for request in requests}
    engine = Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(9, is_static=True))
    assert made_by(engine, requests) == alone


@pytest.mark.parametrize("known", [KnownTokens(), GIVEN], ids=["picture", "edit"])
@pytest.mark.parametrize("order", ["halton", "confidence", "distilled"])
def test_a_picture_that_was_interrupted_anywhere_goes_on_as_the_same_one(order, known):
    request = make_request(4, order=order, steps=6, known=known, revise=5)
    decoded, steps, picture = revised_steps(request)
    moments = [(cut, 0) for cut in range(len(decoded) + 1)] + [(len(decoded), cut) for cut in (2, 5)]
    redrawn = [patch.token_id for patches in steps for patch in patches]
    for cut, num_redrawn in moments:
        done = decoded[:cut]
        resumed = KnownTokens(
            (*known.positions, *(patch.position for patch in done)),
            (*known.token_ids, *(patch.token_id for patch in done)),
            num_resumed=cut,
            surprises=tuple(patch.surprise or 0.0 for patch in done),
            redrawn=tuple(redrawn[:num_redrawn]),
        )
        again = dataclasses.replace(request, known=resumed)
        rest, rest_of_steps, whole = revised_steps(again)
        assert whole == picture
        assert [p.position for p in rest] == [p.position for p in decoded[cut:]]
        assert [p.token_id for patches in rest_of_steps for p in patches] == redrawn[num_redrawn:]
        assert made_by(Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(4)), [again]) == {request.id: picture}


def test_events_and_the_forecast():
    engine = Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(4))
    request = make_request(1, order="random", steps=6, revise=3)
    engine.add(request)
    events: list[EngineEvent] = []
    while engine.has_work:
        left = max(engine.forecast().values(), default=0)
        events += engine.step()
        assert left == max(engine.forecast().values(), default=0) + 1
    kinds = [type(event) for event in events]
    assert kinds == [SequenceStarted, *[PatchesDecoded] * 6, *[PatchesRevised] * 2, SequenceFinished]
    decoded = [event for event in events if isinstance(event, PatchesDecoded)]
    assert [(event.step, event.steps) for event in decoded] == [(step, 6) for step in range(1, 7)]
    positions = [patch.position for event in decoded for patch in event.patches]
    assert sorted(positions) == list(range(TINY.num_tokens))  # each once
    assert [(event.step, event.steps) for event in events if isinstance(event, PatchesRevised)] == [(1, 2), (2, 2)]


def test_a_revision_can_be_aborted_and_leaves_its_slots():
    engine = Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(4))
    engine.add(make_request(1, order="random", steps=2, revise=3))
    engine.step()
    engine.step()
    engine.step()
    assert engine.abort("picture-1")
    engine.step()
    assert engine.num_free_slots == 4
    assert not engine.has_work


def test_what_cannot_be_revised_is_refused():
    with pytest.raises(StepsError, match="revise"):
        make_request(1, order="random", revise=-1)
    known = KnownTokens((3,), (1,), num_resumed=1)
    with pytest.raises(RequestError, match="surprises"):
        generate(tiny_backbone(), [make_request(1, order="confidence", revise=2, known=known)], UNCONDITIONAL)


def test_the_noise_of_a_revision_is_its_own():
    keys = {revision_key(random.Random(seed).randrange(1 << 40), image) for seed in range(20) for image in range(3)}
    assert len(keys) == 60
