"""`revise` over HTTP: what it changes, what events tell of it, what a killed worker leaves of it, how it is refused."""

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from oar_client import Canvas
from oar_client.feed import parse_event
from oar_wire.errors import InvalidRequest
from oar_wire.model import GenerationDefaults, ModelInfo, describe_options
from oar_wire.request import GenerationRequest
from server.api.validation import resolve
from server.settings import Settings
from tests.server.live import LiveServer
from tests.server.tiny import NUM_TOKENS
from tests.waiting import wait_for

WISH = {"seed": 3, "order": "random", "steps": 4}
Events = list[dict[str, Any]]


def positions(events: Events, kind: str, image: int = 0) -> list[int]:
    told = (event["patches"] for event in events if event["type"] == kind and event["image"] == image)
    return [patch["position"] for patch in itertools.chain(*told)]


def test_tokens_are_drawn_again_when_the_picture_is_whole(live: LiveServer) -> None:
    job, plain = live.submit(**WISH, revise=5), live.submit(**WISH)
    events, others = live.events(job["id"]), live.events(plain["id"])
    told = [event["type"] for event in events if event["type"] in {"patches", "revised", "completed"}]
    assert told == [*["patches"] * 4, *["revised"] * 2, "completed"]
    assert sorted(positions(events, "patches")) == list(range(NUM_TOKENS)), "each once, as without it"
    assert positions(events, "patches") == positions(others, "patches")
    assert len(set(positions(events, "revised"))) == 5
    surprises = [value for event in events if event["type"] == "patches" for value in event["surprises"]]
    by_surprise = sorted(zip(surprises, positions(events, "patches")), key=lambda pair: -pair[0])
    assert {position for _, position in by_surprise[:5]} == set(positions(events, "revised"))
    assert not any("surprises" in event for event in others)
    assert live.png(job["id"]) != live.png(plain["id"])
    status = live.client.get(job["url"]).json()
    assert (status["status"], status["params"]["revise"]) == ("completed", 5)


def test_a_canvas_shows_the_new_tokens_at_their_first_ranks(live: LiveServer) -> None:
    events = live.events(live.submit(**WISH, revise=5)["id"])
    canvas = Canvas()
    for event in events:
        canvas.feed(parse_event(event))
    (image,) = canvas.images
    assert image.revised == set(positions(events, "revised"))
    tokens = {
        patch["position"]: patch["token"]
        for event in events
        if event["type"] in {"patches", "revised"}
        for patch in event["patches"]
    }
    assert {position: patch.token for position, patch in image.patches.items()} == tokens
    assert [image.rank(position) for position in positions(events, "patches")] == list(range(NUM_TOKENS))


@pytest.mark.running
def test_a_worker_that_is_killed_in_a_revision_leaves_a_picture_that_ends_as_the_same_one(
    live: LiveServer, tmp_path: Path, weights_dir: Path
) -> None:
    asked = {**WISH, "revise": 5, "n": 2, "previews": False}
    undisturbed = live.submit(**asked)
    whole = live.events(undisturbed["id"])
    with LiveServer(tmp_path, weights_dir, is_gated=True, OAR_SLOTS="2") as server:
        with server.held(5):  # four steps, and the first of the revision
            job = server.submit(**asked)
            with server.stream(job["id"]) as stream:
                next(event for event in stream if event["type"] == "revised")
            (pid,) = wait_for(lambda: server.children("worker"))
            os.kill(pid, signal.SIGKILL)
        events = server.events(job["id"])
        assert "restarted" in {event["type"] for event in events}
        for image in range(2):
            assert sorted(positions(events, "patches", image)) == list(range(NUM_TOKENS))
            assert positions(events, "revised", image) == positions(whole, "revised", image)
            assert server.png(job["id"], image) == live.png(undisturbed["id"], image)


def test_an_edit_is_revised_where_it_was_painted_alone(live: LiveServer) -> None:
    from tests.server.test_edits import base64_of, mask, picture

    body = {**WISH, "prompt": "a red circle", "image": base64_of(picture()), "mask": base64_of(mask()), "revise": 3}
    events = live.events(live.client.post("/v1/edits", json=body).json()["id"])
    revised = positions(events, "revised")
    assert len(revised) == 3
    assert set(revised) <= set(positions(events, "patches")) < set(range(NUM_TOKENS))


def test_a_model_that_cannot_refuses_it_and_does_not_offer_it() -> None:
    model = ModelInfo(
        name="groups", grid=(2, 3), image_size=(8, 12), orders=("raster",), group_sizes=("cosine",),
        defaults=GenerationDefaults(steps=3), can_revise=False,
    )  # fmt: skip
    with pytest.raises(InvalidRequest, match="revise is 2; this model cannot") as refusal:
        resolve(GenerationRequest.model_validate({"prompt": "a hen", "revise": 2}), model, Settings())
    assert (refusal.value.code, refusal.value.field) == ("invalid_steps", "revise")
    assert resolve(GenerationRequest.model_validate({"prompt": "a hen", "revise": 0}), model, Settings()).revise == 0
    assert "revise" not in {option.name for option in describe_options(model)}
