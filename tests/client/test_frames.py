"""Videos by both clients: their frames as they come, and all of them in the end."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from oar_client import BadRequest, Canvas, FrameOutput, JobCanceled
from tests.client.conftest import Open
from tests.models.videos import NAME as VIDEO
from tests.models.videos import NUM_FRAMES, NUM_SIGMAS, SIZE
from tests.server.films import MODELS, write_both
from tests.server.live import LiveServer

PROMPT = "thing 2"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    weights = tmp_path_factory.mktemp("weights")
    write_both(weights)
    with LiveServer(tmp_path_factory.mktemp("live"), weights, is_gated=True, OAR_MODELS=MODELS) as live:
        yield live


@pytest.mark.running
def test_frames_are_there_while_the_others_are_made(server: LiveServer, open_client: Open) -> None:
    client = open_client(server.url)
    with server.held(3 * NUM_SIGMAS):
        job = client.submit(PROMPT, model=VIDEO, seed=3)
        frames = job.frames()
        early = [next(iter(frames)) for _ in range(3)]
    made = [*early, *frames]
    assert all(isinstance(frame, FrameOutput) for frame in made)
    assert [(frame.image, frame.frame, frame.index) for frame in made] == [(0, n, n) for n in range(NUM_FRAMES)]
    assert {(frame.kind, frame.media_type) for frame in made} == {("frame", "image/png")}
    assert made[0].to_pil().size == SIZE[::-1]
    assert len({frame.data for frame in made}) == NUM_FRAMES


def test_a_video_is_waited_for_and_saved(server: LiveServer, open_client: Open, tmp_path: Path) -> None:
    client = open_client(server.url)
    result = client.generate(PROMPT, model=VIDEO, seed=3, n=2)
    assert result.images == ()
    assert [(video.kind, video.index, video.media_type) for video in result.videos] == [
        ("video", 0, "image/webp"),
        ("video", 1, "image/webp"),
    ]
    first, second = result.save(tmp_path / "out.webp")
    assert (first.name, second.name) == ("out-0.webp", "out-1.webp")
    assert first.read_bytes() == result.video.data
    with Image.open(io.BytesIO(result.video.data)) as animation:
        assert animation.n_frames == NUM_FRAMES
    job = client.job(result.job_id)
    assert [output.kind for output in job.outputs()] == ["frame"] * 2 * NUM_FRAMES + ["video"] * 2
    assert job.images() == []


def test_a_picture_is_an_output_as_well(server: LiveServer, open_client: Open) -> None:
    client = open_client(server.url)
    result = client.generate("a red circle", seed=1)
    (output,) = client.job(result.job_id).outputs()
    assert (output.kind, output.index, output.media_type) == ("image", 0, "image/png")
    assert output.to_pil().tobytes() == result.image.to_pil().tobytes()
    assert result.videos == ()


def test_a_canvas_knows_where_frames_are(server: LiveServer, open_client: Open) -> None:
    client = open_client(server.url)
    job = client.submit(PROMPT, model=VIDEO, n=2)
    canvas = Canvas(2)
    for event in job.events():
        canvas.feed(event)
    for image in canvas.images:
        assert sorted(image.frames) == list(range(NUM_FRAMES))
        assert image.is_drawn
    canvas.images[0].keep(3)
    assert sorted(canvas.images[0].frames) == [0, 1, 2]


@pytest.mark.running
def test_frames_of_a_canceled_job_end_with_that(server: LiveServer, open_client: Open) -> None:
    client = open_client(server.url)
    with server.held(NUM_SIGMAS):
        job = client.submit(PROMPT, model=VIDEO)
        frames = job.frames()
        assert next(iter(frames)).frame == 0
        job.cancel()
    with pytest.raises(JobCanceled):
        list(frames)


def test_what_a_model_of_frames_cannot_do_is_a_bad_request(server: LiveServer, open_client: Open) -> None:
    client = open_client(server.url)
    with pytest.raises(BadRequest, match="means nothing to it") as refused:
        client.submit(PROMPT, model=VIDEO, steps=4)
    assert (refused.value.code, refused.value.field) == ("invalid_steps", "steps")
