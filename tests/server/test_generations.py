"""The path of a request on a running server: POST, queue, worker, events, websocket, PNG."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import PatchesDecoded, SequenceFinished
from oar_core.engine.sequence import KnownTokens
from oar_core.models.load import load_model
from oar_core.models.model import Model
from oar_core.order.plan import DEFAULT_CANDIDATES, DEFAULT_ENTROPY_BOUND, ORDERS, PlanSpec, make_plan
from oar_wire.events import EVENTS
from oar_wire.job import GenerationParams
from oar_wire.model import GenerationDefaults
from server.worker.requests import read_prompts, sequence_request
from tests.server.live import LiveServer
from tests.server.tiny import DEFAULTS, GRID, NAME, NUM_TOKENS
from tests.waiting import wait_for


def patches(events: list[dict[str, Any]], image: int = 0) -> list[dict[str, Any]]:
    return [patch for event in events if event["type"] == "patches" and event["image"] == image
            for patch in event["patches"]]  # fmt: skip


def check_log(events: list[dict[str, Any]], n: int = 1) -> None:
    """What every finished job's log keeps to. A number that is missing was a preview that a newer one replaced."""
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(set(seqs))
    if not any(event["type"] == "preview" for event in events):
        assert seqs == list(range(1, len(events) + 1))
    assert [event["type"] for event in events][:2] == ["queued", "started"]
    assert events[-1]["type"] == "completed"
    for image in range(n):
        decoded = patches(events, image)
        assert [patch["rank"] for patch in decoded] == list(range(NUM_TOKENS))
        assert sorted(patch["position"] for patch in decoded) == list(range(NUM_TOKENS))
        assert all(patch["position"] == patch["row"] * GRID[1] + patch["col"] for patch in decoded)
    for event in events:
        EVENTS.validate_python(event)


def test_a_prompt_becomes_a_picture(live: LiveServer) -> None:
    answer = live.post(seed=7, order="spiral", steps=5)
    assert answer.status_code == 202
    accepted = answer.json()
    assert answer.headers["Location"] == accepted["url"]
    assert accepted["seed"] == 7
    assert accepted["stream_url"] == f"/v1/generations/{accepted['id']}/stream"
    events = live.events(accepted["id"])
    check_log(events)
    steps = [event["step"] for event in events if event["type"] == "patches"]
    assert steps == [1, 2, 3, 4, 5]
    order = make_plan(PlanSpec("spiral", 5), GRID, seed=7).order
    assert tuple(patch["position"] for patch in patches(events)) == order
    status = live.client.get(accepted["url"]).json()
    assert (status["status"], status["attempts"], status["position"], status["eta"]) == ("completed", 1, None, None)
    assert status["seq"] == events[-1]["seq"]
    picture = Image.open(io.BytesIO(live.png(accepted["id"])))
    assert (picture.format, picture.size) == ("PNG", (20, 16))


def test_an_absent_seed_is_chosen_and_returned(live: LiveServer) -> None:
    first, second = live.post(wait=60).json(), live.post(wait=60).json()
    assert first["seed"] != second["seed"]
    again = live.post(wait=60, seed=first["seed"]).json()
    assert live.png(first["id"]) == live.png(again["id"])


def test_prefer_wait_answers_with_the_finished_job(live: LiveServer) -> None:
    answer = live.post(wait=60, n=2)
    assert answer.status_code == 200
    assert answer.headers["Preference-Applied"] == "wait=60"
    assert [image["index"] for image in answer.json()["images"]] == [0, 1]


def test_the_images_of_a_job_share_its_seed_and_differ(live: LiveServer) -> None:
    job = live.submit(n=3, seed=5)
    events = live.events(job["id"])
    check_log(events, n=3)
    pngs = [live.png(job["id"], index) for index in range(3)]
    assert len(set(pngs)) == 3
    assert live.client.get(f"{job['url']}/images/3").json()["error"]["code"] == "image_not_found"


def test_a_picture_is_cached_for_ever_by_its_etag(live: LiveServer) -> None:
    url = live.post(wait=60).json()["images"][0]["url"]
    first = live.client.get(url)
    assert "immutable" in first.headers["Cache-Control"]
    again = live.client.get(url, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.running
def test_previews_show_the_canvas_and_can_be_turned_off(live: LiveServer) -> None:
    previews = previews_of_a_held_job(live, live.submit, n=16, steps=NUM_TOKENS)
    for event in previews:
        picture = Image.open(io.BytesIO(base64.b64decode(event["data"])))
        assert (picture.format, picture.size) == ("WEBP", (event["width"], event["height"])) == ("WEBP", (20, 16))
        assert 0 < event["known"] < event["total"] == NUM_TOKENS
    silent = live.submit(n=8, steps=NUM_TOKENS, previews=False)
    check_log(live.events(silent["id"]), n=8)
    assert not [event for event in live.events(silent["id"]) if event["type"] == "preview"]


def previews_of_a_held_job(
    live: LiveServer, submit: Callable[..., dict[str, Any]], **body: Any
) -> list[dict[str, Any]]:
    """The job stands still until a preview of what it has written so far is there."""
    previews: list[dict[str, Any]] = []
    live.wait_until_idle()  # no other job makes its steps
    with live.held(3) as gate:
        job = submit(**body)
        with live.stream(job["id"]) as stream:
            for event in stream:
                if event["type"] == "preview":
                    previews.append(event)
                    gate.open()
    return previews


def test_the_entropy_bound_is_the_engines_and_is_for_adaptive_groups_alone(live: LiveServer) -> None:
    def num_steps(**wish: Any) -> int:
        job = live.submit(seed=7, order="raster", steps=NUM_TOKENS, previews=False, **wish)
        return sum(event["type"] == "patches" for event in live.events(job["id"]))

    loose, tight = (num_steps(group_sizes="adaptive", entropy_bound=bound) for bound in (10_000, 0))
    assert loose < tight <= NUM_TOKENS
    assert {num_steps(entropy_bound=bound) for bound in (10_000, 0)} == {NUM_TOKENS}
    assert live.submit()["params"]["entropy_bound"] == DEFAULT_ENTROPY_BOUND == GenerationDefaults().entropy_bound


def test_a_shortlist_of_one_is_the_policys_choice_and_of_all_the_models(live: LiveServer) -> None:
    def drawn(order: str, **wish: Any) -> list[Any]:
        job = live.submit(seed=7, order=order, steps=NUM_TOKENS, previews=False, **wish)
        events = live.events(job["id"])
        return [(p["row"], p["col"], p["token"]) for e in events if e["type"] == "patches" for p in e["patches"]]

    assert drawn("shortlist", candidates=1) == drawn("distilled")
    assert drawn("shortlist", candidates=NUM_TOKENS) == drawn("confidence") != drawn("distilled")
    assert drawn("distilled", candidates=NUM_TOKENS) == drawn("distilled")
    assert live.submit()["params"]["candidates"] == DEFAULT_CANDIDATES == GenerationDefaults().candidates


def test_guidance_may_hold_for_a_part_of_the_picture_and_grow(live: LiveServer) -> None:
    wishes = ({}, {"guidance_interval": [0.5, 1]}, {"guidance_schedule": "linear"}, {"guidance": 1})
    pictures = []
    for wish in wishes:
        job = live.post(wait=60, seed=3, **{"guidance": 6, **wish}).json()
        assert job["status"] == "completed", job
        assert {name: job["params"][name] for name in wish} == wish
        pictures.append(live.client.get(job["images"][0]["url"], params={"metadata": "false"}).content)
    assert len(set(pictures)) == len(wishes)


def test_32_jobs_at_once_give_the_pictures_that_each_gives_alone(live: LiveServer, weights_dir: Path) -> None:
    orders = [*ORDERS, list(reversed(range(NUM_TOKENS)))]
    wishes = [
        {"seed": index, "order": orders[index % len(orders)], "steps": 1 + index % NUM_TOKENS,
         "guidance": 1.0 if index % 3 else 3.0, "temperature": 0.5 + index % 4 / 2, "top_k": index % 5 * 4}
        for index in range(32)
    ]  # fmt: skip
    jobs = [live.submit(**wish) for wish in wishes]
    pipeline = load_model(weights_dir / NAME, "cpu", torch.float32)
    for job in jobs:
        events = live.events(job["id"])
        check_log(events)
        params = GenerationParams.model_validate(job["params"])
        alone = draw_alone(pipeline, params)
        assert [(patch["position"], patch["token"]) for patch in patches(events)] == alone
        tokens = torch.tensor([[token for _, token in sorted(alone)]])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(live.png(job["id"])))), pipeline.decode(tokens)[0])


def draw_alone(pipeline: Model, params: GenerationParams) -> list[tuple[int, int]]:
    """(position, token) in decode order, by an engine of its own."""
    engine = Engine(pipeline.backbone, pipeline.unconditional_ids, EngineConfig(2))
    engine.add(sequence_request(params, read_prompts(params, pipeline), "alone", 0, KnownTokens()))
    events = []
    while engine.has_work:
        events += engine.step()
    assert isinstance(events[-1], SequenceFinished)
    return [(patch.position, patch.token_id) for event in events if isinstance(event, PatchesDecoded)
            for patch in event.patches]  # fmt: skip


@pytest.mark.running
def test_a_running_job_is_canceled_within_a_step(live: LiveServer) -> None:
    with live.held(1):
        job = live.submit(n=16, steps=NUM_TOKENS, guidance=3.0, previews=False)
        with live.stream(job["id"]) as stream:
            next(event for event in stream if event["type"] == "patches")
            answer = live.client.delete(job["url"])
            assert answer.status_code in (200, 202)
            rest = list(stream)
    assert rest[-1]["type"] == "canceled"
    assert len(patches(rest)) <= 1, "of the step that was made before"
    assert live.client.get(job["url"]).json()["status"] == "canceled"
    assert live.client.get(f"{job['url']}/images/0").json()["error"]["code"] == "job_has_no_image"
    assert live.client.delete(job["url"]).json()["status"] == "canceled"
    assert live.post(wait=60).status_code == 200, "the rows are free again"


def test_an_idempotency_key_makes_one_job_of_two_requests(live: LiveServer) -> None:
    headers = {"Idempotency-Key": "test-key"}
    answers = [live.client.post("/v1/generations", json={"prompt": "a circle"}, headers=headers) for _ in range(2)]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    other = live.client.post("/v1/generations", json={"prompt": "a square"}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


def test_a_prompt_may_have_as_many_tokens_as_the_model_says(live: LiveServer) -> None:
    """The API counts with the text tokenizer that the worker published, as the worker does."""
    limit = live.client.get(f"/v1/models/{NAME}").json()["max_prompt_tokens"]
    letters = "zq" * limit  # no merge was learned for them: a token each, and one for the space in front
    assert live.post(wait=60, prompt=letters[: limit - 1]).json()["status"] == "completed"
    error = live.post(prompt=letters[:limit]).json()["error"]
    assert (error["code"], error["field"]) == ("prompt_too_long", "prompt")
    assert error["message"] == f"the prompt has {limit + 1} tokens; {NAME} reads {limit}"


def test_models_tell_what_a_request_may_ask_for(live: LiveServer) -> None:
    listed = live.client.get("/v1/models").json()
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert (model["id"], model["object"], model["is_default"], tuple(model["grid"])) == (NAME, "model", True, GRID)
    always = {"guidance_interval": [0, 1], "guidance_schedule": "constant", "negative_prompt": None}
    assert model["defaults"] == {
        **DEFAULTS,
        **always,
        "entropy_bound": DEFAULT_ENTROPY_BOUND,
        "candidates": DEFAULT_CANDIDATES,
        "repulsion": 1,
        "revise": 0,
    }
    assert model["orders"] == list(ORDERS)
    for prompt in model["example_prompts"]:
        assert live.post(wait=60, prompt=prompt).json()["status"] == "completed"
    assert live.client.get(f"/v1/models/{NAME}").json() == model


def test_health_and_metrics(live: LiveServer) -> None:
    assert live.client.get("/live").status_code == live.client.get("/ready").status_code == 200
    live.post(wait=60)
    text = live.client.get("/metrics").text
    for name in ("oar_requests_total", "oar_http_requests_total", "oar_queue_depth", "oar_ws_connections"):
        assert name in text
    assert 'route="/v1/generations"' in text
    assert "gen-" not in text, "an id became a label"


def test_the_workers_metrics_are_seen_through_the_api(live: LiveServer) -> None:
    live.post(wait=60)
    wait_for(lambda: "oar_jobs_total" in live.client.get("/metrics").text)
    text = live.client.get("/metrics").text
    assert 'worker="worker-' in text
    assert text.count("# TYPE oar_jobs_total ") <= 1
    histograms = (
        "time_to_first_patch_seconds",
        "inter_step_latency_seconds",
        "e2e_request_latency_seconds",
        "batch_rows",
    )
    for name in (
        *histograms,
        "request_queue_time_seconds",
        "patches_generated_total",
        "images_generated_total",
        "steps_total",
    ):
        assert f"oar_{name}" in text


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_the_api_describes_itself(live: LiveServer, path: str) -> None:
    assert live.client.get(path).status_code == 200


def test_a_client_that_repeats_itself_may_have_less_time_left(live: LiveServer) -> None:
    """What is left of its time is no part of what it asks for."""
    headers = {"Idempotency-Key": "less-time"}
    body = {"prompt": "a red circle"}
    answers = [
        live.client.post("/v1/generations", json=body, headers={**headers, "Cancel-After": seconds})
        for seconds in ("60", "30.5")
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[1].json()["params"]["deadline"] == 60


@pytest.mark.parametrize(
    "prefer", [["Wait=20"], ['wait="20"'], ["wait = 20"], ["respond-async", "wait=20"], ["wait=20", "handling=lenient"]]
)
def test_waiting_is_asked_for_in_every_way_that_the_standard_knows(live: LiveServer, prefer: list[str]) -> None:
    headers = [("Prefer", value) for value in prefer]
    answer = live.client.post("/v1/generations", json={"prompt": "a red circle", "steps": 2}, headers=headers)
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (200, "wait=20")
