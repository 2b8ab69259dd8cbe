"""Videos, served by one worker beside pictures: frame after frame, through a kill, with what is refused."""

import asyncio
import base64
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from redis import Redis

from oar_cli import main
from oar_core.models.load import load_frame_model
from oar_core.sampling.frames import FrameRequest, generate_frames
from oar_wire.job import GenerationParams
from server.jobs.connection import RedisConnection
from server.jobs.queue import JobQueue
from server.settings import Settings
from tests.models.videos import NAME as VIDEO
from tests.models.videos import NUM_FRAMES, NUM_SIGMAS, SIZE
from tests.server.films import MODELS, write_both
from tests.server.live import LiveServer
from tests.server.tiny import NAME
from tests.server.uploads import encode
from tests.server.uploads import picture as uploaded
from tests.waiting import HANG_SECONDS, wait_for

STEPS = NUM_FRAMES * NUM_SIGMAS


@pytest.fixture(scope="module")
def both_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_both(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, both_weights: Path) -> Iterator[LiveServer]:
    settings = {"OAR_MODELS": MODELS, "OAR_DETERMINISTIC": "true", "OAR_RESULTS": "redis"}
    with LiveServer(tmp_path_factory.mktemp("frames"), both_weights, is_gated=True, **settings) as live:
        yield live


def asked(**body: Any) -> dict[str, Any]:
    return {"model": VIDEO, "prompt": "thing 3", **body}


def frames_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "frame"]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_catalogue_says_what_the_model_makes_and_takes(server: LiveServer) -> None:
    models = {entry["id"]: entry for entry in server.client.get("/v1/models").json()["data"]}
    video, picture = models[VIDEO], models[NAME]
    assert video["layout"] == {"kind": "frames", "shape": [NUM_FRAMES, *SIZE], "channels": 1}
    assert video["outputs"] == ["frame", "video"]
    assert [option["name"] for option in video["options"]] == ["guidance"]
    assert (video["can_edit"], video["has_previews"], video["orders"], video["group_sizes"]) == (False, False, [], [])
    assert picture["layout"]["kind"] == "grid"
    assert picture["layout"]["shape"] == picture["grid"]
    assert picture["outputs"] == ["image"]
    assert (picture["can_edit"], picture["has_previews"]) == (True, True)
    assert {"order", "steps", "guidance"} <= {option["name"] for option in picture["options"]}


def test_a_video_is_streamed_frame_by_frame_beside_pictures(server: LiveServer, both_weights: Path) -> None:
    videos = server.submit(**asked(n=2, seed=6, guidance=2.5))
    picture = server.submit(seed=2)
    events = server.events(videos["id"])
    assert server.events(picture["id"])[-1]["type"] == "completed"
    model = load_frame_model(both_weights / VIDEO, "cpu", torch.float32)
    for image in range(2):
        request = FrameRequest("alone", model.encode_prompt("thing 3"), 6, image, 2.5)
        (frames,) = generate_frames(model.backbone, [request], model.unconditional_ids)
        told = [event for event in frames_of(events) if event["image"] == image]
        assert [(event["frame"], event["frames"]) for event in told] == [(n, NUM_FRAMES) for n in range(NUM_FRAMES)]
        assert [event["step"] for event in told] == [NUM_SIGMAS * (n + 1) for n in range(NUM_FRAMES)]
        for number, event in enumerate(told):
            index = image * NUM_FRAMES + number
            url = f"/v1/generations/{videos['id']}/outputs/frame/{index}"
            assert event["output"] == {"kind": "frame", "index": index, "media_type": "image/png", "url": url}
            answer = server.client.get(event["output"]["url"])
            assert answer.headers["content-type"] == "image/png"
            assert "immutable" in answer.headers["cache-control"]
            assert np.array_equal(pixels(answer.content), model.show(frames[number][None])[0])
    types = {event["type"] for event in events}
    assert types == {"queued", "started", "frame", "completed"}
    ending = events[-1]
    assert ending["images"] == []
    assert [(made["kind"], made["index"]) for made in ending["outputs"]] == [
        *(("frame", index) for index in range(2 * NUM_FRAMES)),
        *(("video", index) for index in range(2)),
    ]
    status = server.client.get(f"/v1/generations/{videos['id']}").json()
    assert (status["images"], status["outputs"]) == ([], ending["outputs"])


def test_a_whole_video_is_an_animation_of_its_frames(server: LiveServer) -> None:
    job = server.submit(**asked(seed=8))
    ending = server.events(job["id"])[-1]
    *frames, video = [server.client.get(made["url"]) for made in ending["outputs"]]
    assert video.headers["content-type"] == "image/webp"
    animation = Image.open(io.BytesIO(video.content))
    assert (animation.n_frames, animation.size) == (NUM_FRAMES, SIZE[::-1])
    for number, frame in enumerate(frames):
        animation.seek(number)
        assert np.array_equal(np.asarray(animation.convert("RGB")), pixels(frame.content))
        assert animation.info["duration"] == 125
    again = server.client.get(ending["outputs"][-1]["url"], headers={"If-None-Match": video.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.running
def test_frames_can_be_fetched_while_the_video_is_made(server: LiveServer) -> None:
    with server.held(STEPS // 2):
        job = server.submit(**asked(seed=9))
        with server.stream(job["id"]) as stream:
            first = next(event for event in stream if event["type"] == "frame")
            assert server.client.get(first["output"]["url"]).status_code == 200
        url = f"/v1/generations/{job['id']}/outputs"
        early = server.client.get(f"{url}/frame/{NUM_FRAMES - 1}")
        assert (early.status_code, early.json()["error"]["code"]) == (409, "job_not_finished")
        wrong = server.client.get(f"{url}/frame/{NUM_FRAMES}")
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, "output_not_found")
        assert "frames 0 to 7" in wrong.json()["error"]["message"]
        none = server.client.get(f"{url}/image/0")
        assert (none.status_code, none.json()["error"]["message"]) == (404, "this job makes no images")
        assert server.client.get(f"/v1/generations/{job['id']}/images/0").status_code == 404
    assert server.events(job["id"])[-1]["type"] == "completed"


def test_an_image_is_an_output_too(server: LiveServer) -> None:
    job = server.submit(seed=3)
    ending = server.events(job["id"])[-1]
    (made,) = ending["outputs"]
    assert made == {"kind": "image", "index": 0, "media_type": "image/png", "url": ending["images"][0]["url"]}
    output = server.client.get(f"/v1/generations/{job['id']}/outputs/image/0")
    plain = server.client.get(f"{made['url']}?metadata=false")
    assert output.content == plain.content


def wait_for_frames(server: LiveServer, job_id: str, count: int) -> None:
    with server.stream(job_id) as stream:
        for event in stream:
            count -= event["type"] == "frame"
            if not count:
                return


@pytest.mark.running
def test_a_video_goes_on_where_its_worker_was_killed(server: LiveServer, both_weights: Path, tmp_path: Path) -> None:
    """The frames that were told of are the checkpoint: none is made twice, and all bytes are those of a video that
    nothing disturbed."""
    body = asked(n=5, seed=4, guidance=2.0)
    undisturbed = server.submit(**body)
    wanted = server.events(undisturbed["id"])[-1]["outputs"]
    settings = {"OAR_MODELS": MODELS, "OAR_DETERMINISTIC": "true", "OAR_SLOTS": "4"}
    with LiveServer(tmp_path, both_weights, is_gated=True, **settings) as other:
        # Two guided videos at a time; the first worker leaves two in the midst of their fourth frame.
        with other.held(STEPS + 7):
            job = other.submit(**body)
            for kill in range(2):
                wait_for_frames(other, job["id"], 2 * (NUM_FRAMES + 3) + 12 * kill)
                (pid,) = wait_for(lambda: other.children("worker"))
                os.kill(pid, signal.SIGKILL)
                wait_for(lambda pid=pid: other.children("worker") not in ([], [pid]))
        events = other.events(job["id"])
        made = [(event["image"], event["frame"]) for event in frames_of(events)]
        restarts = [event for event in events if event["type"] == "restarted"]
        found = [other.client.get(output["url"]).content for output in events[-1]["outputs"]]
    assert [event["attempt"] for event in restarts] == [2, 3]
    assert restarts[0]["known"] == [NUM_FRAMES, NUM_FRAMES, 3, 3, 0]
    assert sorted(made) == [(image, frame) for image in range(5) for frame in range(NUM_FRAMES)]
    assert found == [server.client.get(output["url"]).content for output in wanted]


@pytest.mark.running
def test_a_video_is_canceled_within_a_step_and_keeps_its_frames(server: LiveServer) -> None:
    with server.held(2 * NUM_SIGMAS):
        job = server.submit(**asked(seed=11))
        wait_for_frames(server, job["id"], 2)
        assert server.client.delete(f"/v1/generations/{job['id']}").status_code == 202
    events = server.events(job["id"])
    assert events[-1]["type"] == "canceled"
    assert len(frames_of(events)) < NUM_FRAMES
    kept = server.client.get(frames_of(events)[0]["output"]["url"])
    assert kept.status_code == 200
    gone = server.client.get(f"/v1/generations/{job['id']}/outputs/video/0")
    assert (gone.status_code, gone.json()["error"]["code"]) == (409, "job_has_no_image")


REFUSED = {
    "order": ("raster", "invalid_order"),
    "steps": (4, "invalid_steps"),
    "group_sizes": ("linear", "invalid_steps"),
    "temperature": (0.5, "invalid_sampling"),
    "guidance_schedule": ("linear", "invalid_sampling"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_mean_nothing_to_frames_are_refused(server: LiveServer, name: str) -> None:
    value, code = REFUSED[name]
    answer = server.client.post("/v1/generations", json=asked(**{name: value}))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (422, code, name)
    assert error["message"] == f"video makes frames, and {name} means nothing to it; it takes guidance"


def test_edits_and_openais_images_are_refused(server: LiveServer) -> None:
    picture = base64.b64encode(encode(uploaded((8, 8)))).decode()
    edit = server.client.post("/v1/edits", json=asked(image=picture, strength=0.5))
    error = edit.json()["error"]
    assert (edit.status_code, error["code"]) == (422, "unsupported_by_model")
    assert error["message"] == "video makes frames, and can keep no part of one that is given"
    images = server.client.post("/v1/images/generations", json={"model": VIDEO, "prompt": "thing 3"})
    error = images.json()["error"]
    assert (images.status_code, error["code"]) == (400, "unsupported_by_model")
    assert "makes frames" in error["message"]


def test_the_command_line_asks_a_model_of_frames_for_nothing(server: LiveServer, tmp_path: Path) -> None:
    def known() -> list[str]:
        return [job["id"] for job in server.client.get("/v1/generations").json()["data"]]

    before = known()
    words = ["generate", "thing 3", "--model", VIDEO, "--url", server.url, "-o", str(tmp_path / "out.png")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert f"{VIDEO} makes no images" in result.output
    assert known() == before


def test_a_job_for_another_kind_of_model_of_that_name_fails_with_a_sentence(server: LiveServer) -> None:
    """The model was replaced while the job waited, by one that makes videos of another length, or none at all."""
    (socket,) = (server.data_dir / "data").rglob("*.sock")

    async def submitted(model: str, frames: int) -> str:
        connection = RedisConnection(f"unix://{socket}", HANG_SECONDS)
        params = GenerationParams(model=model, prompt="a red circle", seed=1, n=1, frames=frames)
        job_id = (await JobQueue(connection, Settings()).submit(params)).job_id
        await connection.close()
        return job_id

    for model, frames in ((VIDEO, 0), (VIDEO, 3), (NAME, NUM_FRAMES)):
        ending = server.events(asyncio.run(submitted(model, frames)))[-1]
        assert (ending["type"], ending["error"]["field"]) == ("failed", "model")
        assert "makes something else now" in ending["error"]["message"]


def test_what_is_kept_of_a_video_goes_with_the_job(server: LiveServer) -> None:
    """Values of frames are there for who goes on, and for nobody once the job has ended."""
    job = server.submit(**asked(seed=12))
    server.events(job["id"])
    (socket,) = (server.data_dir / "data").rglob("*.sock")
    with Redis(unix_socket_path=str(socket)) as redis:
        assert not redis.exists(f"val:{job['id']}")
        assert redis.hlen(f"out:{job['id']}") == 2 * (NUM_FRAMES + 1)
        assert redis.pttl(f"out:{job['id']}") > 0
