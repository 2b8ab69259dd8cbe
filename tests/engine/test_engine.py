import dataclasses

import pytest

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import PatchesDecoded, SequenceAborted, SequenceFinished, SequenceStarted
from oar_core.errors import ConfigError, OrderError, PromptError, PromptLengthError, RequestError, StepsError
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import KnownTokens, SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from tests.engine.backbones import TINY, UNCONDITIONAL, HashBackbone
from tests.engine.requests import diverse_requests, make_request


def make_engine(num_slots: int = 4, backbone: HashBackbone | None = None) -> Engine:
    return Engine(backbone or HashBackbone(), UNCONDITIONAL, EngineConfig(num_slots))


def drain(engine: Engine) -> list:
    events = []
    while engine.has_work:
        events += engine.step()
    return events


def test_a_picture_is_started_decoded_step_by_step_and_finished():
    engine = make_engine()
    engine.add(make_request(order="hilbert", steps=6))
    events = drain(engine)
    started, *decoded, finished = events
    assert started == SequenceStarted("picture-0", 6)
    assert [(event.step, event.steps) for event in decoded] == [(step, 6) for step in range(1, 7)]
    patches = [patch for event in decoded for patch in event.patches]
    assert [patch.rank for patch in patches] == list(range(TINY.num_tokens))
    by_position = sorted(patches, key=lambda patch: patch.position)
    assert finished == SequenceFinished("picture-0", tuple(patch.token_id for patch in by_position))


def test_an_abort_while_running_frees_the_slots_at_once_and_says_so_once():
    engine = make_engine()
    engine.add(make_request(1, order="raster"))
    engine.step()
    assert (engine.num_running, engine.num_free_slots) == (1, 2)
    assert engine.abort("picture-1")
    assert (engine.num_running, engine.num_free_slots) == (0, 4)
    assert engine.has_work
    assert engine.step() == [SequenceAborted("picture-1")]
    assert not engine.has_work
    assert not engine.abort("picture-1")


def test_an_abort_while_waiting_never_starts():
    engine = make_engine(num_slots=2)
    engine.add(make_request(1))
    engine.add(make_request(2))
    assert engine.abort("picture-2")
    events = drain(engine)
    assert [event for event in events if event.sequence_id == "picture-2"] == [SequenceAborted("picture-2")]


def test_an_unknown_sequence_is_not_aborted():
    assert not make_engine().abort("nobody")


def test_an_id_is_free_again_after_its_end_and_not_before():
    engine = make_engine()
    engine.add(make_request(0))
    with pytest.raises(RequestError, match="picture-0 is already in the engine"):
        engine.add(make_request(0))
    drain(engine)
    engine.add(make_request(0))
    assert engine.num_waiting == 1


def test_the_forecast_is_what_happens_where_group_sizes_are_fixed():
    engine = make_engine(num_slots=5)
    for request in diverse_requests(15):
        if request.plan.group_sizes != "adaptive":
            engine.add(request)
    forecast, remaining = engine.forecast(), max(engine.forecast().values(), default=0)
    finished: dict[str, int] = {}
    step = 0
    while engine.has_work:
        step += 1
        finished |= {event.sequence_id: step for event in engine.step() if isinstance(event, SequenceFinished)}
        assert max(engine.forecast().values(), default=0) == remaining - step
    assert finished == forecast
    assert step == remaining


def test_no_picture_is_later_than_forecast_where_groups_are_adaptive():
    engine = make_engine(num_slots=5)
    for request in diverse_requests(12):
        engine.add(dataclasses.replace(request, plan=dataclasses.replace(request.plan, group_sizes="adaptive")))
    forecast, step = engine.forecast(), 0
    while engine.has_work:
        step += 1
        for event in engine.step():
            if isinstance(event, SequenceFinished):
                assert step <= forecast[event.sequence_id]
        assert all(step + left <= forecast[name] for name, left in engine.forecast().items())
    assert step < max(forecast.values())


def test_a_step_that_fails_leaks_no_slots_and_ends_what_ran():
    backbone = HashBackbone()
    engine = make_engine(num_slots=3, backbone=backbone)
    for index in range(4):
        engine.add(make_request(index, order="raster", steps=5))
    first = engine.step()
    assert [event.sequence_id for event in first if isinstance(event, SequenceStarted)] == ["picture-0", "picture-1"]
    backbone.fail_next = True
    with pytest.raises(FloatingPointError, match="the device is gone"):
        engine.step()
    assert (engine.num_running, engine.num_free_slots, engine.num_waiting) == (0, 3, 2)
    rest = drain(engine)
    assert rest[:2] == [SequenceAborted("picture-0"), SequenceAborted("picture-1")]
    finished = {event.sequence_id for event in rest if isinstance(event, SequenceFinished)}
    assert finished == {"picture-2", "picture-3"}
    assert engine.num_free_slots == 3


def test_events_before_a_failure_are_not_lost():
    backbone = HashBackbone()
    backbone.fail_next = True
    engine = make_engine(backbone=backbone)
    engine.add(make_request())
    with pytest.raises(FloatingPointError):
        engine.step()
    assert engine.step() == [SequenceStarted("picture-0", TINY.num_tokens), SequenceAborted("picture-0")]


def test_a_picture_that_is_known_already_finishes_without_decoding():
    tokens = tuple(range(TINY.num_tokens))
    engine = make_engine()
    engine.add(make_request(known=KnownTokens(tokens[::-1], tokens)))
    assert max(engine.forecast().values(), default=0) == 1
    assert engine.step() == [SequenceStarted("picture-0", 0), SequenceFinished("picture-0", tokens[::-1])]
    assert engine.num_free_slots == 4


def test_ranks_and_steps_of_a_resumed_picture_go_on_where_they_were():
    engine = make_engine()
    engine.add(
        make_request(order="raster", steps=5, group_sizes="constant", known=KnownTokens(*[tuple(range(10))] * 2, 10))
    )
    started, first, *_ = engine.step()
    assert started == SequenceStarted("picture-0", 5)
    assert isinstance(first, PatchesDecoded)
    assert (first.step, [patch.rank for patch in first.patches]) == (3, [10, 11])


REQUEST = SequenceRequest("x", (1,), 0, 0, PlanSpec(), SamplingParams())


@pytest.mark.parametrize(
    ("changes", "error", "field"),
    [
        ({"plan": PlanSpec(steps=TINY.num_tokens + 1)}, StepsError, "steps"),
        ({"plan": PlanSpec(order=(1, 0))}, OrderError, "order"),
        ({"condition_ids": ()}, PromptError, "prompt"),
        ({"condition_ids": (TINY.condition_vocab,)}, PromptError, "prompt"),
        ({"condition_ids": (1,) * (TINY.max_condition + 1)}, PromptLengthError, "prompt"),
        ({"known": KnownTokens((TINY.num_tokens,), (0,))}, RequestError, "known"),
        ({"known": KnownTokens((0,), (TINY.vocab_size,))}, RequestError, "known"),
        ({"plan": PlanSpec("raster"), "known": KnownTokens((3,), (0,), 1)}, RequestError, "known"),
    ],
)
def test_what_the_model_cannot_serve_is_refused_when_it_is_added(changes, error, field):
    engine = make_engine()
    with pytest.raises(error) as caught:
        engine.add(dataclasses.replace(REQUEST, **changes))
    assert caught.value.field == field
    assert not engine.has_work


@pytest.mark.parametrize("known", [((0, 1), (3,), 0), ((2, 2), (3, 4), 0), ((0,), (3,), 2), ((0,), (3,), -1)])
def test_known_tokens_that_contradict_themselves_are_refused(known):
    with pytest.raises(RequestError) as caught:
        KnownTokens(*known)
    assert caught.value.field == "known"


def test_an_engine_needs_room_for_a_guided_picture_and_a_real_unconditional_prefix():
    with pytest.raises(ConfigError, match="a guided picture holds 2"):
        make_engine(num_slots=1)
    with pytest.raises(ConfigError, match="unconditional_ids"):
        Engine(HashBackbone(), (), EngineConfig(4))


def test_slots_beyond_the_memory_for_them_are_refused_at_the_start():
    slot_bytes = HashBackbone().new_cache(1).num_bytes
    Engine(HashBackbone(), UNCONDITIONAL, EngineConfig(4, max_cache_bytes=4 * slot_bytes))
    with pytest.raises(ConfigError, match=r"5 cache slots need .* which is enough for 4 slots"):
        Engine(HashBackbone(), UNCONDITIONAL, EngineConfig(5, max_cache_bytes=5 * slot_bytes - 1))


def test_a_distilled_order_needs_a_policy():
    backbone = HashBackbone()
    backbone.is_able_to_score = False
    request = make_request(order="distilled")
    with pytest.raises(OrderError, match="this model has no order policy") as error:
        make_engine(backbone=backbone).add(request)
    assert error.value.field == "order"
    with pytest.raises(OrderError, match="this model has no order policy"):
        generate(backbone, [request], UNCONDITIONAL)


def test_the_load_is_that_of_the_latest_step():
    engine = make_engine(num_slots=4)
    engine.add(make_request(1, order="raster", steps=2))
    engine.step()
    assert (engine.load.slots, engine.load.pads) == (2, 0)
    engine.add(make_request(3, order="raster", steps=TINY.num_tokens))
    engine.step()
    assert engine.load.slots == 3
    assert engine.load.positions == 2 * 14 + 1
    drain(engine)
    engine.step()
    assert (engine.load.slots, engine.load.positions) == (0, 0)


EDIT = KnownTokens(tuple(range(16)), (1,) * 16)


def test_a_long_prefill_does_not_stall_what_runs():
    """Sixteen known tokens in two slots, four a step: the other picture gets its group in each of these steps."""
    engine = Engine(HashBackbone(), UNCONDITIONAL, EngineConfig(4, max_prefill=4))
    engine.add(make_request(3, order="raster", steps=TINY.num_tokens))
    engine.step()
    engine.add(make_request(1, order="raster", steps=2, known=EDIT))
    steps = [engine.step() for _ in range(10)]
    assert all([patch.rank for patch in _patches(events, "picture-3")] == [n + 1] for n, events in enumerate(steps))
    assert [bool(_patches(events, "picture-1")) for events in steps] == 8 * [False] + [True, True]
    assert SequenceFinished("picture-1", tuple(_tokens(steps, "picture-1", EDIT))) in steps[9]


def _patches(events: list, name: str) -> list:
    decoded = (event for event in events if isinstance(event, PatchesDecoded) and event.sequence_id == name)
    return [patch for event in decoded for patch in event.patches]


def _tokens(steps: list[list], name: str, known: KnownTokens) -> list[int]:
    by_position = dict(zip(known.positions, known.token_ids))
    by_position |= {patch.position: patch.token_id for events in steps for patch in _patches(events, name)}
    return [by_position[position] for position in sorted(by_position)]


def test_a_step_tells_how_many_tokens_it_prefilled():
    engine = Engine(HashBackbone(), UNCONDITIONAL, EngineConfig(4, max_prefill=8))
    engine.add(make_request(1, order="raster", steps=2, known=EDIT))
    told = []
    while engine.has_work:
        engine.step()
        told.append(engine.load.prefilled)
    assert told[0] == 2 + 1 + 6  # both conditions, then what is left of eight after the prompt's
    assert sum(told) == 2 + 1 + 2 * 16
    assert max(told[1:]) == 8


def test_a_picture_is_aborted_in_the_middle_of_its_prefill():
    backbone = HashBackbone()
    engine = Engine(backbone, UNCONDITIONAL, EngineConfig(2, max_prefill=4))
    engine.add(make_request(1, order="raster", steps=2, known=EDIT))
    engine.add(make_request(4, order="raster", steps=2))
    assert engine.step() == [SequenceStarted("picture-1", 2)]
    assert engine.step() == []
    assert engine.abort("picture-1")
    assert engine.num_free_slots == 2
    events = drain(engine)
    assert events[:2] == [SequenceAborted("picture-1"), SequenceStarted("picture-4", 2)]
    (whole,) = generate(HashBackbone(), [make_request(4, order="raster", steps=2)], UNCONDITIONAL)
    assert events[-1] == SequenceFinished("picture-4", whole)


def test_many_that_begin_at_once_do_so_over_several_steps_and_each_step_begins_one():
    engine = Engine(HashBackbone(), UNCONDITIONAL, EngineConfig(12, max_prefill=2))
    for index in range(0, 9, 3):
        engine.add(make_request(index, order="raster"))
    began = [sum(isinstance(event, SequenceStarted) for event in engine.step()) for _ in range(4)]
    assert sum(began) == 3
    assert max(began) < 3


def test_a_deterministic_engine_does_not_divide_prefills():
    engine = Engine(HashBackbone(), UNCONDITIONAL, EngineConfig(4, max_prefill=1, is_deterministic=True))
    engine.add(make_request(1, order="raster", steps=2, known=EDIT))
    assert _patches(engine.step(), "picture-1")


def test_the_pair_of_rows_is_skipped_outside_the_interval_of_guidance():
    """Twenty positions, guided from the fifth to the ninth; at the fifth, the sleeper's four tokens are prefilled."""
    sampling = SamplingParams(guidance=2.0, guidance_interval=(0.25, 0.5))
    engine = make_engine()
    engine.add(dataclasses.replace(make_request(order="raster", steps=TINY.num_tokens), sampling=sampling))
    slots, prefilled = [], []
    while engine.has_work:
        engine.step()
        slots.append(engine.load.slots)
        prefilled.append(engine.load.prefilled)
    assert slots == 5 * [1] + 5 * [2] + 10 * [1]
    assert prefilled == [2, 0, 0, 0, 0, 4, *[0] * 14]


def test_a_step_of_a_prefill_needs_room_for_a_token():
    with pytest.raises(ConfigError, match="max_prefill is 0"):
        Engine(HashBackbone(), UNCONDITIONAL, EngineConfig(4, max_prefill=0))


def test_the_cache_grows_with_the_load_up_to_its_slots_and_then_stays():
    engine = make_engine(num_slots=20)
    slot_bytes = HashBackbone().new_cache(1).num_bytes
    sizes = []
    for count in (3, 6, 20, 20, 2, 20):
        for index in range(count):
            engine.add(make_request(3 * index, order="raster", steps=2))  # unguided: one slot each
        drain(engine)
        sizes.append(engine.cache_bytes // slot_bytes)
    assert sizes == [8, 8, 20, 20, 20, 20]
