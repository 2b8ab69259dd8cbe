"""What holds for the native family holds for every family: the engine equals the loop, company changes nothing, and a
resumed picture is the one that was interrupted."""

from dataclasses import replace

import pytest
import torch

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import PatchesDecoded
from oar_core.errors import RequestError
from oar_core.models.base import Commit, Condition, Features, Query, StaticBackbone
from oar_core.models.features import FeatureConditioner
from oar_core.models.load import load_model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import KnownTokens, SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from tests.equivalence.running import run
from tests.models.folders import BACKBONES, NUM_TOKENS, write_caption_model, write_golden_model

PLANS = [
    PlanSpec("random", 5, "cosine"),
    PlanSpec("halton", 4, "linear"),
    PlanSpec("raster", None),
    PlanSpec("spiral", 3, "constant"),
    PlanSpec("locality", 6, "cosine"),
    PlanSpec("spaced", 5, "published", repulsion=3),
]
SAMPLINGS = [
    SamplingParams(guidance=3.0),
    SamplingParams(guidance=1.0, top_p=0.9),
    SamplingParams(guidance=2.0, guidance_interval=(0.3, 0.8)),
    SamplingParams(guidance=4.0, guidance_schedule="linear", temperature=0.8),
]
CAPTIONS = "llamagen of captions"


@pytest.fixture(scope="module", params=[*sorted(BACKBONES), CAPTIONS])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    if request.param == CAPTIONS:
        write_caption_model(folder, FeatureConditioner(120), FeatureConditioner.kind)
    else:
        write_golden_model(request.param, folder)
    return load_model(folder, "cpu", torch.float32)


def condition_of(model, index):
    """A class, or features of a length of its own."""
    width = model.backbone.spec.feature_width
    if not width:
        return model.encode_prompt(str(index % 10))
    return Features(torch.randn(3 + index % 10, width, generator=torch.Generator().manual_seed(index)))


def plans_of(model):
    """A family that can ask the next position alone has one plan."""
    return [PlanSpec("raster", None)] if model.has_fixed_steps else PLANS


def given_to(model, index):
    """Nothing can be given where every picture begins with its first position."""
    return KnownTokens((3, 9, 4), (7, 8, 9)) if index % 3 == 2 and model.backbone.spec.can_edit else KnownTokens()


def requests_of(model, count=12):
    return [
        SequenceRequest(
            f"picture-{index}",
            condition_of(model, index),
            100 + index,
            index % 2,
            plans_of(model)[index % len(plans_of(model))],
            SAMPLINGS[index % len(SAMPLINGS)],
            given_to(model, index),
        )
        for index in range(count)
    ]


@pytest.mark.parametrize("settings", [{}, {"is_deterministic": True}, {"max_prefill": 3}])
def test_the_engine_draws_what_the_loop_draws_for_each_alone(model, settings):
    requests = requests_of(model)
    finished, _ = run(model, requests, **settings)
    for request in requests:
        (alone,) = generate(model.backbone, [request], model.unconditional_ids)
        assert finished[request.id] == alone


@pytest.mark.parametrize("settings", [{}, {"max_prefill": 2}])
def test_a_picture_that_is_resumed_after_any_step_is_the_same(model, settings):
    requests = requests_of(model)
    finished, steps = run(model, requests)
    for request in requests:
        for done in range(1, len(steps[request.id])):
            drawn = [pair for step in steps[request.id][:done] for pair in step]
            known = request.known
            resumed = KnownTokens(
                (*known.positions, *(position for position, _ in drawn)),
                (*known.token_ids, *(token for _, token in drawn)),
                num_resumed=len(drawn),
                num_steps=done,
            )
            again, _ = run(model, [replace(request, known=resumed)], **settings)
            assert again[request.id] == finished[request.id], f"{request.plan} after step {done}"


@pytest.mark.parametrize("settings", [{}, {"is_deterministic": True}, {"max_prefill": 3}])
def test_a_picture_is_the_same_to_the_last_bit_whether_or_not_it_is_guessed(model, settings):
    requests = requests_of(model)

    def patches(*, guessing):
        engine = Engine(model.backbone, model.unconditional_ids, EngineConfig(6, **settings))
        for request in requests:
            engine.add(request)
        told, known = [], {request.id: set(request.known.positions) for request in requests}
        while engine.has_work:
            for event in engine.step():
                if isinstance(event, PatchesDecoded):
                    told.append(event)
                    known[event.sequence_id] |= {patch.position for patch in event.patches}
            for name in known if guessing else ():
                expectation = engine.expect(name)
                if expectation is not None:
                    assert set(expectation.positions) == set(range(NUM_TOKENS)) - known[name]
                    guesses.append(expectation)
        assert engine.expect(requests[0].id) is None
        return told

    guesses = []
    assert patches(guessing=True) == patches(guessing=False)
    assert len(guesses) > len(requests) if model.backbone.spec.has_free_order else not guesses


def test_a_guess_is_the_likeliest_token_at_each_position_by_what_is_in_the_cache(model):
    if model.has_fixed_steps:  # its next position alone can be asked
        assert not model.guesses_unknown
        return
    engine = Engine(model.backbone, model.unconditional_ids, EngineConfig(2))
    engine.add(SequenceRequest("one", (3,), 5, 0, PlanSpec("random", 6), SamplingParams()))
    engine.step()
    found = engine.expect("one")
    # The token of the first step is not in the cache yet.
    cache = model.backbone.new_cache(1)
    nothing, slots = torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    none = Commit(nothing, nothing, torch.zeros(1, dtype=torch.long))
    model.backbone.prefill(cache, slots, Condition.stack([(3,)], torch.device("cpu")), none)
    asked = torch.tensor(found.positions)
    logits = model.backbone.step(cache, slots, none, Query(asked, (len(asked),)))
    assert found.token_ids == tuple(logits.argmax(-1).tolist())
    assert len(found.positions) == NUM_TOKENS - 1


def test_a_part_of_a_group_cannot_be_resumed(model):
    if model.has_fixed_steps:  # there is no part of a group of one position
        assert model.backbone.spec.has_free_groups
        return
    request = SequenceRequest("half", (1,), 5, 0, PlanSpec("raster", 2, "constant"), SamplingParams())
    half = KnownTokens((0, 1, 2), (1, 2, 3), num_resumed=3, num_steps=1)
    with pytest.raises(RequestError, match="drawn whole"):
        generate(model.backbone, [replace(request, known=half)], model.unconditional_ids)


def test_what_a_family_cannot_do_is_refused_with_a_sentence(model):
    refused = {"adaptive": PlanSpec("raster", None if model.has_fixed_steps else 4, "adaptive")}
    if not model.backbone.spec.can_ask_all:
        refused["confidence"] = PlanSpec("confidence")
    if model.has_fixed_steps:
        refused |= {"halton": PlanSpec("halton"), "a permutation": PlanSpec(tuple(reversed(range(NUM_TOKENS))))}
    for word, plan in refused.items():
        assert word not in (*model.orders, *model.group_sizes)
        with pytest.raises(RequestError, match=word):
            generate(model.backbone, [SequenceRequest("no", (1,), 0, 0, plan, SamplingParams())], (10,))
    assert model.orders == ("raster",) if model.has_fixed_steps else len(model.orders) > 5
    for name in model.orders:
        plan = PlanSpec(name, None if model.has_fixed_steps else 4)
        (tokens,) = generate(model.backbone, [SequenceRequest(name, (1,), 0, 0, plan, SamplingParams())], (10,))
        assert len(tokens) == NUM_TOKENS


def test_a_family_that_writes_in_raster_order_takes_no_other_number_of_steps_and_keeps_nothing(model):
    if not model.has_fixed_steps:
        assert (model.backbone.spec.has_free_order, model.backbone.spec.can_edit) == (True, True)
        return
    request = SequenceRequest("raster", (1,), 0, 0, PlanSpec(tuple(range(NUM_TOKENS)), NUM_TOKENS), SamplingParams())
    same = replace(request, plan=PlanSpec("raster"))
    assert generate(model.backbone, [request], (10,)) == generate(model.backbone, [same], (10,))
    for sentence, refused in {
        "one position a step, which is 16 steps": replace(request, plan=PlanSpec("raster", 8)),
        "no part can be given": replace(request, known=KnownTokens((0, 1), (5, 6))),
    }.items():
        with pytest.raises(RequestError, match=sentence):
            generate(model.backbone, [refused], (10,))
    assert (model.group_sizes, model.backbone.spec.can_edit) == (("constant",), False)


def test_features_that_do_not_fit_are_refused_with_a_sentence(model):
    width = model.backbone.spec.feature_width
    wrong = {
        "33 wide; the model reads 32": torch.zeros(3, width + 1),
        "no finite numbers": torch.full((3, width), torch.nan),
        "the prompt has 121 tokens; the model takes up to 120": torch.zeros(121, width),
        "no tokens": torch.zeros(0, width),
    }
    if not width:
        wrong = {"the prompt consists of features, and this model reads ids": torch.zeros(1, 32)}
    for sentence, values in wrong.items():
        request = SequenceRequest("wrong", Features(values), 0, 0, plans_of(model)[0], SamplingParams())
        with pytest.raises(RequestError, match=sentence):
            generate(model.backbone, [request], model.unconditional_ids)


def test_a_model_of_features_reads_no_text(model):
    if not model.backbone.spec.feature_width:
        assert model.conditioner.kind == "class"
        return
    with pytest.raises(RequestError, match="reads features of captions"):
        model.encode_prompt("a hen")
    assert model.encode_prompt("") == model.unconditional_ids == tuple(range(120))


def test_classes_are_found_by_name_by_number_and_by_likeness(model):
    if model.conditioner.kind != "class":
        return
    assert model.encode_prompt("Great White  Shark") == model.encode_prompt("2") == (2,)
    assert model.unconditional_ids == (10,)
    assert model.encode_prompt("gold fish") == (1,)  # the nearest
    with pytest.raises(RequestError, match="is no class of this model, nor a number from 0 to 9"):
        model.encode_prompt("zzz")
    with pytest.raises(RequestError, match="did you mean 'goldfish'"):
        model.conditioner.encode_captions(["gold fish"], max_length=1)


def test_pictures_are_decoded_whole_and_in_part(model):
    (tokens,) = generate(model.backbone, requests_of(model, 1), model.unconditional_ids)
    token_ids = torch.tensor([tokens])
    pixels = model.decode(token_ids)
    assert pixels.shape == (1, *model.image_size, 3)
    assert (model.decode_partial(token_ids, torch.ones_like(token_ids, dtype=torch.bool)) == pixels).all()


def test_static_steps_draw_what_the_loop_draws(model):
    """Of a family that can do them. Commits that see their group see it there too."""
    if not isinstance(model.backbone, StaticBackbone):
        pytest.skip("this family has no static step")
    requests = [replace(request, sampling=SAMPLINGS[0], known=KnownTokens()) for request in requests_of(model)]
    finished, _ = run(model, requests, is_static=True)
    for request in requests:
        (alone,) = generate(model.backbone, [request], model.unconditional_ids)
        assert finished[request.id] == alone
