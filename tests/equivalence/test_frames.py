"""Videos of values: the cache equals the whole pass, company changes next to nothing, and a video that was interrupted
goes on as the one that was not."""

from dataclasses import replace

import pytest
import torch

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import FrameMade, SequenceAborted, SequenceFinished, SequenceStarted
from oar_core.errors import ConfigError, PromptError, RequestError, SamplingError
from oar_core.models.base import Condition
from oar_core.models.frames import FramesSpec
from oar_core.models.load import load_frame_model, load_model
from oar_core.sampling.frames import FrameProgress, FrameRequest, generate_frames
from oar_core.sampling.noise import normal, value_noise_key
from tests.models.videos import NUM_FRAMES, NUM_SIGMAS, write_video_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "video"
    write_video_model(folder)
    return load_frame_model(folder, "cpu", torch.float32)


def requests_of(model, count=6):
    return [
        FrameRequest(
            f"video-{index}",
            model.encode_prompt(str(index % 10)),
            seed=50 + index,
            image_index=index % 2,
            guidance=(1.0, 2.5)[index % 2],
        )
        for index in range(count)
    ]


def run(model, requests, *, stagger=0, **settings):
    """Frames and events of each, through the engine; `stagger` steps lie between two arrivals."""
    engine = Engine(model.backbone, model.unconditional_ids, EngineConfig(settings.pop("slots", 64), **settings))
    events, waiting = [], list(requests)
    while waiting or engine.has_work:
        if waiting:
            engine.add(waiting.pop(0))
            for _ in range(stagger):
                events += engine.step()
        if not waiting or stagger:
            events += engine.step()
    frames = {request.id: list(request.known) for request in requests}
    for event in events:
        if isinstance(event, FrameMade):
            assert event.number == len(frames[event.sequence_id])
            assert event.step == NUM_SIGMAS * (event.number + 1)
            frames[event.sequence_id].append(event.values)
    return {name: torch.stack(made) for name, made in frames.items()}, events


def test_the_cache_gives_what_the_whole_pass_gives(model):
    """Every guess of a video, denoised over the cache, against one pass over all clean and noisy frames."""
    backbone, spec = model.backbone, model.backbone.spec
    generator = torch.Generator().manual_seed(3)
    shape = (3, NUM_FRAMES, *spec.layout.frame_shape)
    clean, noisy = (torch.randn(shape, generator=generator) for _ in range(2))
    sigmas = torch.rand(shape[:2], generator=generator)
    condition = Condition.stack([(1,), (4,), (10,)], torch.device("cpu"))
    with torch.inference_mode():
        whole = backbone(condition, clean, noisy, sigmas)
        cache, slots = backbone.new_cache(5), torch.tensor([0, 2, 3])
        backbone.prefill(cache, slots, condition)
        for number in range(NUM_FRAMES):
            for _ in range(2):  # a guess leaves nothing behind
                guess = backbone.denoise(cache, slots, noisy[:, number], sigmas[:, number])
                assert torch.allclose(guess, whole[:, number], atol=1e-5)
            backbone.commit(cache, slots, clean[:, number])
    assert (guess - whole[:, 0]).abs().max() > 0.1


def test_frames_depend_on_the_frames_before_and_on_the_class(model):
    (first,), (other,) = (
        generate_frames(model.backbone, [FrameRequest("a", ids, 1, 0)], model.unconditional_ids)
        for ids in (model.encode_prompt("0"), model.encode_prompt("1"))
    )
    assert (torch.stack(first) - torch.stack(other)).abs().max() > 0.01
    disturbed = (*(frame + 1 for frame in first[:1]), *first[1:3])
    request = FrameRequest("a", model.encode_prompt("0"), 1, 0, known=disturbed)
    (gone_on,) = generate_frames(model.backbone, [request], model.unconditional_ids)
    assert (gone_on[3] - first[3]).abs().max() > 1e-3


def test_the_engine_gives_the_frames_of_the_reference_loop_in_any_company(model):
    requests = requests_of(model)
    alone = [generate_frames(model.backbone, [request], model.unconditional_ids)[0] for request in requests]
    together, _ = run(model, requests)
    staggered, events = run(model, requests, stagger=3, slots=4)
    for request, frames in zip(requests, alone):
        wanted = torch.stack(frames)
        assert wanted.shape == (NUM_FRAMES, *model.backbone.spec.layout.frame_shape)
        assert torch.allclose(together[request.id], wanted, atol=1e-5)
        assert torch.allclose(staggered[request.id], wanted, atol=1e-5)
    started = [event for event in events if isinstance(event, SequenceStarted)]
    assert {event.steps for event in started} == {NUM_FRAMES * NUM_SIGMAS}
    assert sum(isinstance(event, SequenceFinished) for event in events) == len(requests)


def test_videos_share_steps_at_different_frames(model):
    """Continuous batching: one that came later is at an earlier frame, in the same step."""
    engine = Engine(model.backbone, model.unconditional_ids, EngineConfig(8))
    first, second, *_ = requests_of(model)
    engine.add(first)
    for _ in range(2 * NUM_SIGMAS):
        engine.step()
    engine.add(second)
    for _ in range(NUM_SIGMAS):
        events = engine.step()
    made = {event.sequence_id: event.number for event in events if isinstance(event, FrameMade)}
    assert made == {first.id: 2, second.id: 0}
    assert engine.load.slots == 3


def test_a_deterministic_engine_gives_the_same_bits_in_any_company(model):
    requests = requests_of(model)
    alone = [generate_frames(model.backbone, [request], model.unconditional_ids)[0] for request in requests]
    together, _ = run(model, requests, is_deterministic=True, stagger=1)
    assert all(torch.equal(together[request.id], torch.stack(frames)) for request, frames in zip(requests, alone))


@pytest.mark.parametrize("settings", [{"is_deterministic": True}, {"max_prefill": 1}, {"max_prefill": 200}, {}])
@pytest.mark.parametrize("num_known", [1, 3, NUM_FRAMES - 1, NUM_FRAMES])
def test_an_interrupted_video_goes_on_as_the_undisturbed_one(model, settings, num_known):
    requests = requests_of(model)
    undisturbed, _ = run(model, requests, **settings)
    resumed = [replace(request, known=tuple(undisturbed[request.id][:num_known])) for request in requests]
    frames, events = run(model, resumed, **settings)
    for request in requests:
        if settings.get("is_deterministic"):
            assert torch.equal(frames[request.id], undisturbed[request.id])
        else:
            assert torch.allclose(frames[request.id], undisturbed[request.id], atol=1e-5)
    made = [event for event in events if isinstance(event, FrameMade)]
    assert len(made) == len(requests) * (NUM_FRAMES - num_known)


def test_one_video_alone_goes_on_bit_for_bit(model):
    """A commit is a call of its own, of one frame: what is repeated has the shapes that it had."""
    for request in requests_of(model, 2):
        (undisturbed,) = generate_frames(model.backbone, [request], model.unconditional_ids)
        for num_known in range(1, NUM_FRAMES):
            known = replace(request, known=undisturbed[:num_known])
            (frames,) = generate_frames(model.backbone, [known], model.unconditional_ids)
            assert torch.equal(torch.stack(frames), torch.stack(undisturbed))


def test_a_video_can_be_aborted_between_steps_and_its_slots_come_back(model):
    engine = Engine(model.backbone, model.unconditional_ids, EngineConfig(4))
    for request in requests_of(model, 4):
        engine.add(request)
    engine.step()
    assert engine.abort("video-1")
    events = engine.step()
    assert SequenceAborted("video-1") in events
    while engine.has_work:
        events += engine.step()
    assert engine.num_free_slots == 4
    assert sum(isinstance(event, SequenceFinished) for event in events) == 3


def test_the_forecast_is_exact(model):
    engine = Engine(model.backbone, model.unconditional_ids, EngineConfig(4))
    for request in requests_of(model, 4):
        engine.add(request)
    engine.step()
    forecast, ends, step = engine.forecast(), {}, 0
    while engine.has_work:
        step += 1
        ends |= {event.sequence_id: step for event in engine.step() if isinstance(event, SequenceFinished)}
    assert ends == forecast


def test_the_noise_of_values_is_normal_and_of_its_own():
    keys = torch.tensor([value_noise_key(1, 0), value_noise_key(1, 1)])
    noise = normal(keys, torch.tensor([4, 4]), 20_000)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert abs((noise[0] * noise[1]).mean()) < 0.03
    assert torch.equal(normal(keys[1:], torch.tensor([4]), 20_000)[0], noise[1])
    assert not torch.equal(normal(keys[:1], torch.tensor([5]), 20_000)[0], noise[0])


def test_what_the_model_cannot_make_is_refused(model):
    spec, frame = model.backbone.spec, torch.zeros(1, 8, 8)
    with pytest.raises(PromptError):
        FrameProgress(FrameRequest("a", (), 0, 0), spec)
    with pytest.raises(RequestError, match="known holds 9 frames; this model makes 8"):
        FrameProgress(FrameRequest("a", (1,), 0, 0, known=(frame,) * 9), spec)
    with pytest.raises(RequestError, match="another shape"):
        FrameProgress(FrameRequest("a", (1,), 0, 0, known=(frame[:, :4],)), spec)
    with pytest.raises(SamplingError):
        FrameRequest("a", (1,), 0, 0, guidance=-1.0)
    with pytest.raises(ConfigError, match="do not fall"):
        FramesSpec(spec.layout, (1.0, 1.0), 2, 1)


def test_a_model_of_frames_is_none_of_tokens(tmp_path):
    write_video_model(tmp_path / "video")
    with pytest.raises(ConfigError, match="makes frames of values"):
        load_model(tmp_path / "video", "cpu", torch.float32)
    with pytest.raises(ConfigError, match="int8"):
        load_frame_model(tmp_path / "video", "cpu", torch.int8)
