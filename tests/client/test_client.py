"""The surface of both clients, against a real server."""

import asyncio
import inspect
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image

import oar_client
from oar_client import (
    AsyncClient,
    AsyncEventStream,
    AsyncJob,
    BadAnswer,
    BadRequest,
    Canvas,
    Client,
    ClientClosed,
    Conflict,
    ConnectionFailed,
    EditOptions,
    EventStream,
    Job,
    JobCanceled,
    JobFailed,
    NotFound,
    OarError,
    Options,
    Patience,
    TimedOut,
)
from oar_wire.edit import EditFields
from oar_wire.events import Completed, Patches, Queued
from oar_wire.request import GenerationRequest
from tests.client.conftest import Open
from tests.ports import nowhere
from tests.server.live import ROOT, LiveServer
from tests.server.tiny import NAME, NUM_TOKENS
from tests.waiting import HANG_SECONDS, wait_for

WISH = {"seed": 7, "order": "spiral", "steps": 4}
LONG = {"n": 12, "steps": NUM_TOKENS, "guidance": 3.0, "seed": 11}


# what is there


def test_both_clients_have_the_same_surface() -> None:
    for ordinary, other in ((Client, AsyncClient), (Job, AsyncJob), (EventStream, AsyncEventStream)):
        names = {name for name in vars(ordinary) if not name.startswith("_")}
        assert names == {name for name in vars(other) if not name.startswith("_")}
        for name in {*names, "__init__"}:
            left, right = getattr(ordinary, name), getattr(other, name)
            if inspect.isfunction(left):
                assert list(inspect.signature(left).parameters) == list(inspect.signature(right).parameters), name
                assert name == "__init__" or (left.__doc__ and right.__doc__), name


def test_options_are_those_of_a_request() -> None:
    assert set(Options.__annotations__) == GenerationRequest.model_fields.keys() - {"prompt"}
    assert set(EditOptions.__annotations__) == EditFields.model_fields.keys() - {"prompt"}


def test_everything_that_is_public_is_exported_and_documented() -> None:
    assert all(hasattr(oar_client, name) for name in oar_client.__all__)
    assert {kind.__name__ for kind in get_args(oar_client.AnyEvent)} <= set(oar_client.__all__)
    errors = {
        name for name, value in vars(oar_client).items() if isinstance(value, type) and issubclass(value, OarError)
    }
    assert errors <= set(oar_client.__all__)
    assert (Path(oar_client.__file__).parent / "py.typed").exists()


# pictures


def test_generate_waits_for_the_pictures(client: Any, live: LiveServer, tmp_path: Path) -> None:
    made = client.generate("a red circle", n=2, timeout=HANG_SECONDS, **WISH)
    assert (made.seed, made.params.order, made.status.status) == (7, "spiral", "completed")
    assert not made.params.previews, "nobody would have seen them"
    assert [picture.index for picture in made.images] == [0, 1]
    assert made.images[1].data == live.png(made.job_id, 1)
    assert made.image.to_pil().size == (20, 16)
    assert made.timings.finished_at >= made.timings.started_at >= made.timings.created_at
    paths = made.save(tmp_path / "out.png")
    assert [path.name for path in paths] == ["out-0.png", "out-1.png"]
    assert paths[0].read_bytes() == made.image.data
    assert client.generate("a red circle", **WISH).save(str(tmp_path / "one.png"))[0].name == "one.png"


def test_submit_returns_at_once_and_events_tell_everything(client: Any, live: LiveServer) -> None:
    job = client.submit("a red circle", n=2, **WISH)
    events = list(job.events())
    assert isinstance(events[0], Queued)
    assert isinstance(events[-1], Completed)
    seqs = [event.seq for event in events]
    assert seqs == sorted(set(seqs))
    written = [patch.position for event in events if isinstance(event, Patches) for patch in event.patches]
    assert sorted(written) == sorted([*range(NUM_TOKENS)] * 2)
    assert list(job.events(after=events[-3].seq)) == events[-2:]
    assert list(job.events(after=10**9)) == [], "nothing follows the end"
    assert job.wait().images[0].data == live.png(job.id)


def test_a_job_is_found_again_by_its_id(client: Any) -> None:
    job = client.submit("a red circle", **WISH)
    again = client.job(job.id)
    assert again.wait().seed == 7
    assert again.status.status == "completed"
    assert again.refresh().seq == again.status.seq
    assert [picture.data for picture in again.images()] == [picture.data for picture in job.wait().images]


def test_pictures_come_in_other_formats(client: Any) -> None:
    job = client.submit("a red circle", **WISH)
    job.wait()
    webp, jpeg = job.image(0, "webp", compression=50), job.images("jpeg")[0]
    assert webp.data[:4] == b"RIFF"
    assert jpeg.data[:2] == b"\xff\xd8"
    assert "oar" in job.image(0).to_pil().info
    assert "oar" not in job.image(0, metadata=False).to_pil().info
    for kind in ("webp", "gif"):
        with Image.open(io.BytesIO(job.painting(0, kind, size=40))) as animation:
            assert (animation.format, animation.size) == (kind.upper(), (40, 32))
            assert animation.n_frames > 2


@pytest.mark.parametrize("kind", ["path", "bytes", "pillow"])
def test_an_edit_takes_paths_bytes_and_pillows_images(client: Any, tmp_path: Path, kind: str) -> None:
    picture, mask = Image.new("RGB", (20, 16), (200, 30, 30)), Image.new("RGBA", (20, 16), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 8, 20, 16))
    sources: list[Any] = [picture, mask]
    if kind != "pillow":
        for index, image in enumerate((picture, mask)):
            image.save(tmp_path / f"{index}.png")
            path = tmp_path / f"{index}.png"
            sources[index] = str(path) if kind == "path" else path.read_bytes()
    made = client.edit(*sources, "a red circle", **WISH)
    upper = made.image.to_pil().convert("RGB").crop((0, 0, 20, 8))
    assert upper.tobytes() == picture.crop((0, 0, 20, 8)).tobytes(), "what the mask covers stays"
    assert made.params.edit.mode == "inpaint"


def test_an_edit_has_options_of_its_own(client: Any) -> None:
    small = Image.new("RGB", (10, 8), (0, 0, 200))
    around = client.edit(small, None, "a red circle", offset=(4, 5), **WISH)
    assert (around.params.edit.mode, around.params.edit.offset) == ("outpaint", (4, 5))
    whole = Image.new("RGB", (20, 16), (0, 0, 200))
    order = list(range(NUM_TOKENS))[::-1]
    job = client.submit_edit(whole, None, "a red circle", strength=0.5, feather=2, order=order, model=NAME)
    assert (job.params.edit.mode, job.params.edit.strength, job.params.edit.feather) == ("vary", 0.5, 2)
    assert list(job.params.order) == order
    job.wait()


def test_models_and_readiness(client: Any, open_client: Open) -> None:
    (model,) = client.models()
    assert (model.id, model.is_default, model.grid) == (NAME, True, (4, 5))
    assert client.model(NAME) == model
    assert client.ready()
    client.wait_until_ready(HANG_SECONDS)
    with nowhere() as url:
        stranger = open_client(url)
        assert not stranger.ready()
        with pytest.raises(TimedOut):
            stranger.wait_until_ready(0.1)


# what goes wrong


@pytest.mark.parametrize(
    ("options", "code", "field"),
    [({"order": "zigzag"}, "invalid_order", "order"), ({"steps": 0}, "invalid_steps", "steps"),
     ({"clip_skip": 2}, "unknown_field", "clip_skip"), ({"seed": float("nan")}, "invalid_request", None),
     ({"order": {1, 2}}, "invalid_request", None)],
)  # fmt: skip
def test_a_bad_option_says_what_the_server_says(
    client: Any, options: dict[str, Any], code: str, field: str | None
) -> None:
    with pytest.raises(BadRequest) as caught:
        client.submit("a red circle", **options)
    assert (caught.value.code, caught.value.field) == (code, field)
    assert caught.value.status in (422, None)
    assert str(caught.value) == caught.value.message
    assert code in repr(caught.value)


@pytest.mark.running
def test_other_refusals_have_classes_of_their_own(client: Any, live: LiveServer) -> None:
    with pytest.raises(NotFound) as caught:
        client.submit("a red circle", model="other")
    assert (caught.value.code, caught.value.status) == ("model_not_found", 404)
    with pytest.raises(NotFound):
        client.model("other")
    with pytest.raises(NotFound) as caught:
        client.job("gen-unknown")
    assert caught.value.code == "job_not_found"
    with live.held():
        job = client.submit("a red circle", **LONG)
        with pytest.raises(Conflict) as conflict:
            job.images()
        assert conflict.value.code == "job_not_finished"
        job.cancel()
    for bad in ("", "../models", "a/b", "%2e"):
        with pytest.raises(BadRequest):
            client.job(bad)
    for bad in ("", "a/b", ".."):
        with pytest.raises(BadRequest):
            client.model(bad)
    with pytest.raises(BadRequest) as refused:
        client.edit(5, None, "a red circle")
    assert (refused.value.code, refused.value.field) == ("invalid_image", "image")
    with pytest.raises(FileNotFoundError):
        client.edit("/nowhere.png", None, "a red circle")


def test_a_stream_of_an_unknown_job_is_refused(client: Any) -> None:
    job = client.submit("a red circle", **WISH)
    job.status = job.status.model_copy(update={"id": "gen-unknown"})
    target = getattr(job, "_target", job)
    target.status = job.status
    with pytest.raises(NotFound) as caught:
        list(job.events())
    assert (caught.value.code, caught.value.status) == ("job_not_found", 404)


@pytest.mark.running
def test_a_canceled_job_and_a_failed_one_have_no_pictures(client: Any, live: LiveServer) -> None:
    with live.held():
        job = client.submit("a red circle", **LONG)
        status = job.cancel()
        # A worker ends a job that it holds at its next step; a job that still waits is canceled by the answer itself.
        assert status.cancel_requested or status.status == "canceled"
        with pytest.raises(JobCanceled) as canceled:
            job.wait()
        assert canceled.value.job_id == job.id
        late = client.submit("a red circle", **LONG, deadline=0.001)
        with pytest.raises(JobFailed) as failed:
            late.wait()
    assert (failed.value.code, failed.value.job_id) == ("deadline_exceeded", late.id)


@pytest.mark.running
def test_a_wait_has_a_bound_and_the_job_goes_on(open_client: Open, slow: LiveServer) -> None:
    with slow.held():
        job = open_client(slow.url).submit("a red circle", **LONG)
        with pytest.raises(TimedOut):
            job.wait(timeout=0.05)
        with pytest.raises(TimedOut):
            list(job.events(timeout=0.05))
    assert len(job.wait(timeout=HANG_SECONDS).images) == 12


@pytest.mark.running
def test_a_generation_that_nobody_waits_for_is_canceled(open_client: Open, slow: LiveServer) -> None:
    """Its id is known to nobody, so it would be painted for nobody."""
    before, begun = canceled(slow), slow.log.read_text().count("job begun")
    client = open_client(slow.url)
    with slow.held():
        for seconds in (0.2, 5, HANG_SECONDS):  # on a busy machine a submit may take as long
            with pytest.raises(TimedOut):
                client.generate("a red circle", **LONG, timeout=seconds)
            if slow.log.read_text().count("job begun") > begun:
                break
        wait_for(lambda: canceled(slow) > before)


def canceled(live: LiveServer) -> float:
    """Jobs that were canceled, of all that the server counted."""
    lines = live.client.get("/metrics?all=1").text.splitlines()
    counts = [line for line in lines if "cancel" in line and not line.startswith("#")]
    return sum(float(line.rpartition(" ")[2]) for line in counts)


def test_a_server_that_is_not_there_is_not_waited_for_long(open_client: Open) -> None:
    patience = Patience(seconds=10 * HANG_SECONDS, first_contact=0.2)
    start = time.monotonic()
    with nowhere() as url, pytest.raises(ConnectionFailed) as caught:
        open_client(url, patience=patience).submit("a red circle")
    assert time.monotonic() - start < HANG_SECONDS
    assert caught.value.code == "connection_failed"


def test_an_answer_of_something_else_is_told(open_client: Open, live: LiveServer) -> None:
    elsewhere = open_client(f"{live.url}/docs")
    with pytest.raises(NotFound):
        elsewhere.models()
    page = open_client(f"{live.url}")
    target = getattr(page, "_target", page)
    from oar_client import calls

    call = calls.Call("GET", "/", calls.ModelList)
    with pytest.raises(BadAnswer, match="no ModelList"):
        run(page, target._connections.send(call))
    with pytest.raises(BadAnswer):
        calls.parse(calls.ModelList, b"<html>")


def run(client: Any, work: Any) -> Any:
    return client._loop.run(work) if inspect.isawaitable(work) else work


# how it is set up


def test_the_environment_names_server_and_key(
    monkeypatch: pytest.MonkeyPatch, live: LiveServer, open_client: Open
) -> None:
    monkeypatch.setenv("OAR_URL", live.url)
    monkeypatch.setenv("OAR_API_KEY", "from the environment")
    client = open_client(None)
    assert client.ready()
    connections = getattr(client, "_target", client)._connections
    assert connections.http_options["headers"]["Authorization"] == "Bearer from the environment"
    named = open_client(live.url, api_key="given")
    connections = getattr(named, "_target", named)._connections
    assert connections.stream_options("gen-1", 3)["additional_headers"]["Authorization"] == "Bearer given"
    assert connections.stream_options("gen-1", 3)["uri"].endswith("/v1/generations/gen-1/stream?after=3")
    assert "given" not in repr(named)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "/path"])
def test_an_address_is_checked_at_once(open_client: Open, url: str) -> None:
    with pytest.raises(BadRequest) as caught:
        open_client(url)
    assert caught.value.field == "base_url"


def test_a_key_is_checked_at_once(open_client: Open) -> None:
    with pytest.raises(BadRequest):
        open_client("http://localhost", api_key="two\nlines")


def test_a_path_in_the_address_is_kept() -> None:
    with Client("https://example.org/oar/") as client:
        options = client._connections.stream_options("gen-1", 0)
        assert options["uri"] == "wss://example.org/oar/v1/generations/gen-1/stream?after=0"
        assert client._connections.http_options["base_url"] == "https://example.org/oar"


@pytest.mark.running
def test_leaving_with_closes_the_sockets(open_client: Open, slow: LiveServer) -> None:
    client = open_client(slow.url)
    with slow.held():
        with client:
            job = client.submit("a red circle", **LONG)
            stream = iter(job.events())
            next(stream)
            assert open_sockets(slow) >= 1
        wait_until_closed(slow)
        slow.client.delete(f"/v1/generations/{job.id}")
    with pytest.raises(ClientClosed):
        client.models()
    with pytest.raises(ClientClosed):
        list(stream)


@pytest.mark.running
def test_a_stream_that_is_left_closes_its_socket(open_client: Open, slow: LiveServer) -> None:
    with slow.held():
        job = open_client(slow.url).submit("a red circle", **LONG)
        with job.events() as events:
            next(iter(events))
            assert open_sockets(slow) >= 1
            assert events.seq == 1
        wait_until_closed(slow)
        job.cancel()


@pytest.mark.running
def test_a_cancelled_task_closes_its_socket_and_cancels_its_job(slow: LiveServer) -> None:
    async def paint() -> None:
        async with AsyncClient(slow.url) as client:
            await client.generate("a red circle", **LONG)

    async def main() -> None:
        task = asyncio.create_task(paint())
        await asyncio.to_thread(wait_for, lambda: open_sockets(slow))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = canceled(slow)
    with slow.held():
        asyncio.run(main())
        wait_until_closed(slow)
        wait_for(lambda: canceled(slow) > before)


@pytest.mark.running
def test_an_interrupt_cancels_what_was_waited_for(slow: LiveServer) -> None:
    """Ctrl-C in a script that waits for a picture."""
    script = (
        f"from oar_client import Client\nwith Client({slow.url!r}) as client:\n    client.generate('x', **{LONG!r})"
    )
    before = canceled(slow)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with slow.held():
        process = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: open_sockets(slow))
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=HANG_SECONDS)[1]
        wait_for(lambda: canceled(slow) > before)
        wait_until_closed(slow)


def open_sockets(live: LiveServer) -> int:
    lines = live.client.get("/metrics").text.splitlines()
    return int(sum(float(line.split()[1]) for line in lines if line.startswith("oar_ws_connections ")))


def wait_until_closed(live: LiveServer) -> None:
    wait_for(lambda: not open_sockets(live))


def test_threads_share_a_client(live: LiveServer) -> None:
    pictures: dict[int, bytes] = {}
    with Client(live.url) as client:

        def paint(seed: int) -> None:
            pictures[seed] = client.generate("a red circle", steps=4, seed=seed).image.data

        threads = [threading.Thread(target=paint, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(pictures) == list(range(6))
        assert pictures[3] == client.generate("a red circle", steps=4, seed=3).image.data


def test_a_forked_process_opens_connections_of_its_own(live: LiveServer) -> None:
    with Client(live.url) as client:
        before = client.generate("a red circle", **WISH).image.data
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                os.write(writer, client.generate("a red circle", **WISH).image.data)
                client.close()
                code = 0
            finally:
                os._exit(code)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            painted = pipe.read()
        assert os.waitpid(pid, 0)[1] == 0
        assert painted == before == client.generate("a red circle", **WISH).image.data


# the canvas


def test_the_canvas_follows_a_job(client: Any) -> None:
    job = client.submit("a red circle", n=2, seed=3, order="spiral", steps=NUM_TOKENS)
    canvas, ranks = Canvas(job.params.n), []
    for event in job.events():
        canvas.feed(event)
        ranks.append(canvas.rank)
    assert ranks == sorted(ranks)
    assert canvas.is_complete
    assert canvas.is_started
    assert (canvas.step, canvas.steps, canvas.num_drawn) == (2 * NUM_TOKENS, 2 * NUM_TOKENS, 2)
    first = canvas.images[0]
    assert sorted(first.patches) == list(range(NUM_TOKENS))
    assert sorted(first.rank(position) for position in range(NUM_TOKENS)) == list(range(NUM_TOKENS))
    assert all(0 <= first.confidence(position) <= 1 for position in range(NUM_TOKENS))
    assert first.rank(99) is None
    assert first.confidence(99) is None
    if first.preview_bytes is not None:
        assert Image.open(io.BytesIO(first.preview_bytes)).size == (20, 16)
