"""What holds for families with a grid holds for one that writes from coarse to fine: the engine equals the loop,
company changes nothing, and a picture that is resumed after any step is the same."""

from dataclasses import replace

import pytest
import torch

from oar_core.errors import RequestError
from oar_core.models.load import load_model
from oar_core.models.model import Model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.edit import Edit
from oar_core.sampling.generate import generate
from oar_core.sampling.request import KnownTokens, SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from tests.equivalence.running import run
from tests.models.details import GROUPS, NUM_STEPS, NUM_TOKENS, write_detail_model

SAMPLINGS = [
    SamplingParams(guidance=3.0),
    SamplingParams(guidance=1.0, top_p=0.9),
    SamplingParams(guidance=2.0, guidance_interval=(0.3, 0.8)),
    SamplingParams(guidance=4.0, guidance_schedule="linear", temperature=0.8),
]
PLAN = PlanSpec("raster")


@pytest.fixture(scope="module", params=["text", "class"])
def model(request, tmp_path_factory) -> Model:
    folder = tmp_path_factory.mktemp("models") / request.param
    write_detail_model(folder, request.param)
    return load_model(folder, "cpu", torch.float32)


def requests_of(model: Model, count: int = 8) -> list[SequenceRequest]:
    prompts = model.example_prompts
    return [
        SequenceRequest(
            f"picture-{index}",
            model.encode_prompt(prompts[index % len(prompts)]),
            100 + index,
            index % 2,
            PLAN,
            SAMPLINGS[index % len(SAMPLINGS)],
        )
        for index in range(count)
    ]


@pytest.mark.parametrize("settings", [{}, {"is_deterministic": True}, {"max_prefill": 3}])
def test_the_engine_draws_what_the_loop_draws_for_each_alone(model, settings):
    requests = requests_of(model)
    finished, steps = run(model, requests, num_steps=NUM_STEPS, **settings)
    for request in requests:
        (alone,) = generate(model.backbone, [request], model.unconditional_ids)
        assert finished[request.id] == alone
        assert tuple(map(len, steps[request.id])) == GROUPS
        assert [position for step in steps[request.id] for position, _ in step] == list(range(NUM_TOKENS))


@pytest.mark.parametrize("settings", [{}, {"max_prefill": 2}])
def test_a_picture_that_is_resumed_after_any_step_is_the_same(model, settings):
    requests = requests_of(model, 4)
    finished, steps = run(model, requests, num_steps=NUM_STEPS)
    for request in requests:
        for done in range(1, NUM_STEPS):
            drawn = [pair for step in steps[request.id][:done] for pair in step]
            known = KnownTokens(*zip(*drawn), num_resumed=len(drawn), num_steps=done)
            again, rest = run(model, [replace(request, known=known)], num_steps=NUM_STEPS, **settings)
            assert again[request.id] == finished[request.id], f"after step {done}"
            assert len(rest[request.id]) == NUM_STEPS - done


def test_pictures_at_different_prefixes_share_a_step(model):
    """Two that begin, two that go on: each is the picture that it is alone."""
    requests = requests_of(model, 4)
    _, steps = run(model, requests, num_steps=NUM_STEPS)
    going = []
    for index, request in enumerate(requests):
        drawn = [pair for step in steps[request.id][: 2 * index] for pair in step]
        positions, token_ids = zip(*drawn) if drawn else ((), ())
        known = KnownTokens(positions, token_ids, num_resumed=len(drawn), num_steps=2 * index)
        going.append(replace(request, known=known))
    together, _ = run(model, going, num_steps=NUM_STEPS)
    for request in requests:
        assert together[request.id] == generate(model.backbone, [request], model.unconditional_ids)[0]


def test_what_cannot_be_asked_is_refused_with_a_sentence(model):
    request = requests_of(model, 1)[0]
    wrong = {
        "this model writes one group a step, which is 7 steps": replace(request, plan=PlanSpec("raster", 8)),
        "in order raster alone": replace(request, plan=PlanSpec("halton")),
        "group_sizes is adaptive": replace(request, plan=PlanSpec("raster", NUM_STEPS, "adaptive")),
        "this model writes one group a step": replace(request, plan=PlanSpec("raster", None, (4, 4, 4, 4))),
        "no part can be given": replace(request, known=KnownTokens((0, 1), (5, 6))),
        "drawn whole": replace(request, known=KnownTokens(tuple(range(6)), (1,) * 6, num_resumed=6, num_steps=5)),
    }
    for sentence, refused in wrong.items():
        with pytest.raises(RequestError, match=sentence):
            generate(model.backbone, [refused], model.unconditional_ids)
    assert (model.orders, model.group_sizes, model.has_fixed_steps) == (("raster",), ("constant",), True)
    same = replace(request, plan=PlanSpec("raster", None, GROUPS))
    assert generate(model.backbone, [same, request], model.unconditional_ids)[0]


def test_a_variation_keeps_the_first_groups_of_a_picture(model):
    (tokens,) = generate(model.backbone, requests_of(model, 1), model.unconditional_ids)
    pixels = model.decode(torch.tensor([tokens]))[0]
    everywhere = torch.ones(pixels.shape[:2], dtype=torch.bool).numpy()
    own = model.encode(pixels[None])[0].tolist()
    for strength, kept in ((1.0, 0), (0.8, 3), (0.5, 8), (0.4, 8), (0.25, 12), (0.01, 12)):
        edit = Edit.vary(model, pixels, everywhere, strength=strength)
        assert (edit.known.positions, edit.known.num_given) == (tuple(range(kept)), 0)
        (request,) = edit.requests(model.encode_prompt(model.example_prompts[0]), PLAN, SAMPLINGS[0], seed=3)
        (varied,) = generate(model.backbone, [request], model.unconditional_ids)
        assert list(varied[:kept]) == own[:kept]
        assert len(varied) == NUM_TOKENS
    everywhere[0] = False
    with pytest.raises(RequestError, match="varies whole pictures"):
        Edit.vary(model, pixels, everywhere, strength=0.5)


def test_a_preview_is_the_prefix_at_its_own_resolution(model):
    tokens = torch.tensor([generate(model.backbone, requests_of(model, 1), model.unconditional_ids)[0]])
    seen = [model.decode_partial(tokens, torch.arange(NUM_TOKENS)[None] < count)[0] for count in (1, 4, 8, 12, 16)]
    assert (seen[-1] == model.decode(tokens)[0]).all()
    assert [model.tokenizer.resolution(count) for count in (1, 4, 8, 16)] == [(1, 1), (5, 5), (10, 10), (16, 16)]
    assert not model.guesses_unknown
