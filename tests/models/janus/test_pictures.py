"""What holds for every family holds for Janus: the engine equals the loop, company changes nothing, and a resumed
picture is the one that was interrupted. It writes in raster order alone, and no part of a picture can be given."""

from dataclasses import replace

import pytest
import torch

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import PatchesDecoded, SequenceFinished
from oar_core.errors import RequestError
from oar_core.models.load import load_model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import KnownTokens, SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from tests.models.janus import reference
from tests.models.janus.folder import write_janus_model

PROMPTS = ("a red hen", "an orc with golden boots on snow", "a bird")
SAMPLINGS = [
    SamplingParams(guidance=5.0),
    SamplingParams(guidance=1.0, top_p=0.9),
    SamplingParams(guidance=2.0, guidance_interval=(0.3, 0.8)),
    SamplingParams(guidance=4.0, guidance_schedule="linear", temperature=0.8),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "janus"
    write_janus_model(folder)
    return load_model(folder, "cpu", torch.float32)


def requests_of(model, count=8):
    return [
        SequenceRequest(
            f"picture-{index}",
            model.encode_prompt(PROMPTS[index % len(PROMPTS)]),
            100 + index,
            index % 2,
            PlanSpec("raster", None),
            SAMPLINGS[index % len(SAMPLINGS)],
            negative_ids=model.encode_prompt("a green orc, blue") if index % 4 == 2 else None,
        )
        for index in range(count)
    ]


def run(model, requests, **settings):
    """Finished pictures by id, and the positions and tokens of each step."""
    engine = Engine(model.backbone, model.unconditional_ids, EngineConfig(6, **settings))
    for request in requests:
        engine.add(request)
    finished, drawn = {}, {request.id: [] for request in requests}
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, SequenceFinished):
                finished[event.sequence_id] = event.token_ids
            elif isinstance(event, PatchesDecoded):
                drawn[event.sequence_id] += [(patch.position, patch.token_id) for patch in event.patches]
        assert engine.expect(requests[0].id) is None, "its next position alone can be asked"
    return finished, drawn


@pytest.mark.parametrize("settings", [{}, {"is_deterministic": True}, {"max_prefill": 3}])
def test_the_engine_draws_what_the_loop_draws_for_each_alone(model, settings):
    requests = requests_of(model)
    finished, drawn = run(model, requests, **settings)
    for request in requests:
        (alone,) = generate(model.backbone, [request], model.unconditional_ids)
        assert finished[request.id] == alone
        assert drawn[request.id] == list(enumerate(alone))


@pytest.mark.parametrize("settings", [{}, {"max_prefill": 2}])
def test_a_picture_that_is_resumed_after_any_step_is_the_same(model, settings):
    requests = requests_of(model, count=4)
    finished, _ = run(model, requests)
    for request in requests:
        for done in range(1, reference.NUM_TOKENS):
            tokens = finished[request.id][:done]
            known = KnownTokens(tuple(range(done)), tokens, num_resumed=done, num_steps=done)
            again, _ = run(model, [replace(request, known=known)], **settings)
            assert again[request.id] == finished[request.id], f"after step {done}"


def test_what_it_cannot_do_is_refused_with_a_sentence(model):
    assert model.orders == ("raster",)
    assert model.group_sizes == ("constant",)
    assert model.has_fixed_steps
    assert not model.backbone.spec.can_edit
    assert not model.guesses_unknown
    (request, *_) = requests_of(model)
    refused = {
        "raster alone": replace(request, plan=PlanSpec("random", None)),
        "one position a step": replace(request, plan=PlanSpec("raster", 4)),
        "no part can be given": replace(request, known=KnownTokens((3,), (1,))),
    }
    for sentence, wrong in refused.items():
        with pytest.raises(RequestError, match=sentence):
            generate(model.backbone, [wrong], model.unconditional_ids)


def test_the_unconditional_picture_is_that_of_an_empty_prompt(model):
    (request, *_) = requests_of(model)
    empty = replace(request, condition_ids=model.encode_prompt(""))
    (tokens,) = generate(model.backbone, [empty], model.unconditional_ids)
    assert len(tokens) == reference.NUM_TOKENS


def test_what_is_unknown_is_decoded_from_a_neutral_code(model):
    (tokens,) = generate(model.backbone, requests_of(model, count=1), model.unconditional_ids)
    token_ids = torch.tensor([tokens])
    known = torch.ones_like(token_ids, dtype=torch.bool)
    assert (model.decode_partial(token_ids, known) == model.decode(token_ids)).all()
    known[:, 5:] = False
    assert (model.decode_partial(token_ids, known) == model.decode_partial(token_ids * known, known)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_it_draws_in_other_number_formats(tmp_path, dtype):
    write_janus_model(tmp_path / "janus")
    model = load_model(tmp_path / "janus", "cpu", dtype)
    finished, _ = run(model, requests_of(model, count=2))
    assert all(len(tokens) == reference.NUM_TOKENS for tokens in finished.values())
