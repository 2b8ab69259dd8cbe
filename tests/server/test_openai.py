"""The real `openai` package against a running server: what its users do, works or is refused with a reason."""

import asyncio
import base64
import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai.types import ImageEditCompletedEvent, ImageEditPartialImageEvent, ImageGenCompletedEvent
from openai.types import ImageGenPartialImageEvent as PartialEvent
from PIL import Image

from tests.server.live import SLOW, LiveServer
from tests.server.test_edits import MASK
from tests.server.tiny import NAME, NUM_TOKENS
from tests.server.uploads import encode, mask, picture
from tests.waiting import HANG_SECONDS, wait_for

PROMPT = "a red circle"
LONG = {"n": 16, "extra_body": {"steps": NUM_TOKENS, "guidance": 3.0, "seed": 1}}
FILES = {"image": ("image.png", encode(picture())), "mask": ("mask.png", encode(mask()))}


@pytest.fixture
def client(live: LiveServer) -> Any:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0, timeout=HANG_SECONDS) as client:
        yield client


def opened(text: str | None) -> Image.Image:
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text)))


def pictures_of(answer: Any) -> list[str]:
    return [image.b64_json for image in answer.data]


def native(live: LiveServer, **body: Any) -> bytes:
    return live.png(live.post(wait=60, prompt=PROMPT, **body).json()["id"])


def test_generate(live: LiveServer, client: openai.OpenAI) -> None:
    answer = client.images.generate(
        prompt=PROMPT, model=NAME, n=2, size="20x16", user="somebody", extra_body={"seed": 7}
    )
    assert answer.data is not None
    assert [opened(image.b64_json).size for image in answer.data] == [(20, 16)] * 2
    assert base64.b64decode(answer.data[0].b64_json or "") == native(live, seed=7), "the same job as a native one"
    assert abs(answer.created - time.time()) < 600
    assert (answer.size, answer.output_format, answer.background) == ("20x16", "png", "opaque")
    facts = (answer.model_extra or {})["oar"]
    assert facts["seed"] == 7
    assert facts["fingerprint"] == live.client.get(f"/v1/models/{NAME}").json()["model_hash"]
    assert live.client.get(f"/v1/generations/{facts['job_id']}").json()["status"] == "completed"


def test_usage_counts_the_prompt_and_the_tokens_that_were_drawn(live: LiveServer, client: openai.OpenAI) -> None:
    usage = client.images.generate(prompt=PROMPT, n=3).usage
    assert usage is not None
    assert usage.output_tokens_details is not None
    assert (usage.output_tokens, usage.output_tokens_details.image_tokens) == (3 * NUM_TOKENS, 3 * NUM_TOKENS)
    assert usage.input_tokens == usage.input_tokens_details.text_tokens > 0
    longer = client.images.generate(prompt=f"{PROMPT}, zq").usage
    assert longer is not None
    assert longer.input_tokens > usage.input_tokens
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    edited = client.images.edit(**FILES, prompt=PROMPT)
    assert edited.usage is not None
    assert edited.usage.input_tokens_details.image_tokens == 11
    events = live.events((edited.model_extra or {})["oar"]["job_id"])
    drawn = sum(len(event["patches"]) for event in events if event["type"] == "patches")
    assert edited.usage.output_tokens == drawn == 9


@pytest.mark.parametrize("call", ["generate", "edit"])
def test_our_options_reach_the_job(live: LiveServer, client: openai.OpenAI, call: str) -> None:
    ours = {"priority": "high", "deadline": 300, "group_sizes": "adaptive", "entropy_bound": 1.5, "candidates": 3}
    files: dict[str, Any] = FILES if call == "edit" else {}
    answer = getattr(client.images, call)(**files, prompt=PROMPT, extra_body=ours)
    params = live.client.get(f"/v1/generations/{answer.model_extra['oar']['job_id']}").json()["params"]
    assert {name: params[name] for name in ours} == ours


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_output_formats(live: LiveServer, client: openai.OpenAI, kind: Any) -> None:
    best = client.images.generate(prompt=PROMPT, output_format=kind, extra_body={"seed": 7}).data
    assert best is not None
    image = opened(best[0].b64_json)
    assert (image.format, image.size) == (kind.upper(), (20, 16))
    if kind != "png":
        sizes = [
            len(
                client.images.generate(
                    prompt=PROMPT, output_format=kind, output_compression=level, extra_body={"seed": 7}
                ).data[0].b64_json
            )
            for level in (0, 50, 100)
        ]  # fmt: skip
        assert sizes == sorted(set(sizes)), "100 is the best"


def test_a_url_instead_of_the_picture(live: LiveServer, client: openai.OpenAI) -> None:
    options: dict[str, Any] = {
        "prompt": PROMPT,
        "extra_body": {"seed": 7},
        "output_format": "webp",
        "output_compression": 30,
    }
    by_url = client.images.generate(**options, response_format="url").data
    direct = client.images.generate(**options).data
    assert by_url is not None
    assert direct is not None
    assert by_url[0].b64_json is None
    assert httpx.get(by_url[0].url or "").content == base64.b64decode(direct[0].b64_json or "")


def test_a_picture_says_what_made_it_unless_it_is_not_to(client: openai.OpenAI) -> None:
    def text(**options: Any) -> dict[str, str]:
        data = client.images.generate(prompt=PROMPT, extra_body={"seed": 7, **options}).data
        assert data is not None
        return opened(data[0].b64_json).text  # pyright: ignore[reportAttributeAccessIssue]

    assert json.loads(text()["oar"])["seed"] == 7
    assert text(metadata=False) == {}


@pytest.mark.parametrize("partial_images", [0, 1, 2, 3])
def test_partial_images_are_spread_over_the_steps(live: LiveServer, client: openai.OpenAI, partial_images: int) -> None:
    steps = 8
    stream = client.images.generate(
        prompt=PROMPT, stream=True, partial_images=partial_images, extra_body={"seed": 7, "steps": steps}
    )
    *partial, completed = list(stream)
    assert [event.partial_image_index for event in partial if isinstance(event, PartialEvent)] == list(
        range(partial_images)
    )
    assert len(partial) == partial_images
    assert isinstance(completed, ImageGenCompletedEvent)
    assert base64.b64decode(completed.b64_json) == native(live, seed=7, steps=steps)
    assert completed.usage.output_tokens == NUM_TOKENS
    for event in (*partial, completed):
        assert (event.size, event.background, event.output_format, event.quality) == (
            "20x16",
            "opaque",
            "png",
            "medium",
        )
        assert abs(event.created_at - time.time()) < 600
        assert (opened(event.b64_json).format, opened(event.b64_json).size) == ("PNG", (20, 16))
    # The log tells after which step each was made.
    job_id = (completed.model_extra or {})["oar"]["job_id"]
    step, seen = 0, []
    for event in live.events(job_id):
        step = event.get("step", step)
        if event["type"] == "partial":
            seen.append((step, event["known"]))
    assert len(seen) == partial_images
    known = [sum(len(event["patches"]) for event in live.events(job_id) if event["type"] == "patches"
             and event["step"] <= -(-steps * (index + 1) // (partial_images + 1)))
             for index in range(partial_images)]  # fmt: skip
    assert [count for _, count in seen] == known


def test_a_stream_of_several_pictures(client: openai.OpenAI) -> None:
    stream = client.images.generate(prompt=PROMPT, stream=True, n=3, partial_images=2, output_format="jpeg")
    events = list(stream)
    finished = [event for event in events if isinstance(event, ImageGenCompletedEvent)]
    assert [(event.model_extra or {})["oar"]["index"] for event in finished] == [0, 1, 2]
    for image in range(3):
        partial = [event for event in events if isinstance(event, PartialEvent)
                   and (event.model_extra or {})["oar"]["index"] == image]  # fmt: skip
        assert [event.partial_image_index for event in partial] == [0, 1]
    whole = client.images.generate(prompt=PROMPT, n=3).usage
    assert whole is not None
    assert sum(event.usage.total_tokens for event in finished) == whole.total_tokens
    assert {opened(event.b64_json).format for event in events} == {"JPEG"}


def test_a_picture_of_few_steps_has_fewer_partial_images(client: openai.OpenAI) -> None:
    stream = client.images.generate(prompt=PROMPT, stream=True, partial_images=3, extra_body={"steps": 2})
    assert [event.type for event in stream] == ["image_generation.partial_image", "image_generation.completed"]


def test_edit(live: LiveServer, client: openai.OpenAI) -> None:
    answer = client.images.edit(**FILES, prompt=PROMPT, n=2, input_fidelity="low", extra_body={"seed": 3, "steps": 4})
    assert answer.data is not None
    pixels = np.asarray(picture())
    for image in answer.data:
        made = np.asarray(opened(image.b64_json))
        assert np.array_equal(made[~MASK], pixels[~MASK])
        assert not np.array_equal(made[MASK], pixels[MASK])
    listed = client.images.edit(image=[FILES["image"]], mask=FILES["mask"], prompt=PROMPT, n=2,
                                extra_body={"seed": 3, "steps": 4})  # fmt: skip
    assert pictures_of(listed) == pictures_of(answer), "a list of one image is one image"


def test_edit_by_the_pictures_own_alpha_and_with_our_options(client: openai.OpenAI) -> None:
    image = picture(mode="RGBA")
    image.putalpha(mask().getchannel("A"))
    options: dict[str, Any] = {"prompt": PROMPT, "extra_body": {"seed": 3, "order": list(range(NUM_TOKENS))}}
    by_alpha = client.images.edit(image=("image.png", encode(image)), **options)
    assert pictures_of(by_alpha) == pictures_of(client.images.edit(**FILES, **options))
    varied = client.images.edit(**FILES, prompt=PROMPT, extra_body={"seed": 3, "strength": 0.2, "feather": 1})
    assert varied.usage is not None
    assert varied.usage.output_tokens == 2
    around = client.images.edit(image=FILES["image"], prompt=PROMPT, extra_body={"offset": [8, 0]})
    assert around.data is not None
    assert np.array_equal(np.asarray(opened(around.data[0].b64_json))[8:], np.asarray(picture())[:8])


@pytest.mark.parametrize("partial_images", [0, 3])
def test_a_streamed_edit(client: openai.OpenAI, partial_images: int) -> None:
    stream = client.images.edit(**FILES, prompt=PROMPT, stream=True, partial_images=partial_images)
    *partial, completed = list(stream)
    assert [type(event) for event in partial] == [ImageEditPartialImageEvent] * partial_images
    assert isinstance(completed, ImageEditCompletedEvent)
    pixels = np.asarray(picture())
    for event in (*partial, completed):
        assert np.array_equal(np.asarray(opened(event.b64_json))[~MASK], pixels[~MASK]), "partial ones keep it too"


def test_the_async_client(live: LiveServer) -> None:
    async def all_at_once() -> list[Any]:
        async with openai.AsyncOpenAI(
            base_url=f"{live.url}/v1", api_key="none", max_retries=0, timeout=HANG_SECONDS
        ) as client:

            async def streamed() -> list[str]:
                stream = await client.images.generate(prompt=PROMPT, stream=True, partial_images=2)
                return [event.type async for event in stream]

            with pytest.raises(openai.NotFoundError):
                await client.images.generate(prompt=PROMPT, model="other")
            models = [model.id async for model in client.models.list()]
            return [models, *await asyncio.gather(
                client.images.generate(prompt=PROMPT, extra_body={"seed": 7}),
                client.images.edit(**FILES, prompt=PROMPT, extra_body={"seed": 3, "steps": 4}),
                streamed(),
            )]  # fmt: skip

    models, generated, edited, types = asyncio.run(all_at_once())
    assert models == [NAME]
    assert base64.b64decode(generated.data[0].b64_json) == native(live, seed=7)
    assert edited.usage.output_tokens == 9
    assert types == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == (NAME, "model", "oar")
    assert model.created > 0
    facts = model.model_extra or {}
    assert (facts["sizes"], facts["licence"], facts["num_tokens"]) == (["20x16"], "Apache-2.0", NUM_TOKENS)
    assert {"grid", "orders", "defaults", "max_prompt_tokens", "example_prompts"} <= facts.keys()
    assert client.models.retrieve(NAME) == model
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("other")
    assert error.value.code == "model_not_found"


REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"model": "other"}, 404, "model_not_found", "model"),
    ({"size": "20X16"}, 400, "invalid_size", "size"),
    ({"size": " 20x16"}, 400, "invalid_size", "size"),
    ({"size": "20*16"}, 400, "invalid_size", "size"),
    ({"size": "020x016"}, 400, "invalid_size", "size"),
    ({"size": "20"}, 400, "invalid_size", "size"),
    ({"size": "-20x-16"}, 400, "invalid_size", "size"),
    ({"size": "20x16x3"}, 400, "invalid_size", "size"),
    ({"size": ""}, 400, "invalid_size", "size"),
    ({"n": 17}, 400, "invalid_n", "n"),
    ({"n": 0}, 400, "invalid_n", "n"),
    ({"prompt": " "}, 400, "invalid_prompt", "prompt"),
    ({"quality": "ultra"}, 400, "invalid_quality", "quality"),
    ({"style": "cubist"}, 400, "invalid_style", "style"),
    ({"background": "striped"}, 400, "invalid_background", "background"),
    ({"output_format": "gif"}, 400, "invalid_output_format", "output_format"),
    ({"output_compression": 50}, 400, "invalid_output_compression", "output_compression"),
    ({"output_compression": 101, "output_format": "webp"}, 400, "invalid_output_compression", "output_compression"),
    ({"partial_images": 2}, 400, "invalid_partial_images", "partial_images"),
    ({"partial_images": 4, "stream": True}, 400, "invalid_partial_images", "partial_images"),
    ({"response_format": "url", "stream": True}, 400, "invalid_response_format", "response_format"),
    ({"moderation": "none"}, 400, "invalid_moderation", "moderation"),
    ({"frame_count": 3}, 400, "unknown_field", "frame_count"),
    ({"extra_body": {"steps": NUM_TOKENS + 1}}, 400, "invalid_steps", "steps"),
    ({"extra_body": {"entropy_bound": -1}}, 400, "invalid_steps", "entropy_bound"),
    ({"extra_body": {"deadline": 0}}, 400, "invalid_deadline", "deadline"),
    ({"extra_body": {"priority": "urgent"}}, 400, "invalid_priority", "priority"),
    ({"extra_body": {"order": "zigzag"}}, 400, "invalid_order", "order"),
    ({"extra_body": {"clip_skip": 2}}, 400, "unknown_field", "clip_skip"),
]


@pytest.mark.parametrize("call", ["generate", "edit"])
@pytest.mark.parametrize(("options", "status", "code", "field"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_kept_is_refused(
    client: openai.OpenAI, call: str, options: dict[str, Any], status: int, code: str, field: str
) -> None:
    if call == "edit":
        # The package's `edit` does not know two of the fields.
        extra = {name: options[name] for name in ("style", "moderation") if name in options}
        rest = {name: value for name, value in options.items() if name not in extra}
        options = {**FILES, **rest, **({"extra_body": extra} if extra else {})}
    with pytest.raises(openai.APIStatusError) as caught:
        getattr(client.images, call)(**{"prompt": PROMPT, **options})
    error = caught.value
    assert (error.status_code, error.code, error.param, error.type) == (
        status,
        code,
        field,
        "not_found_error" if status == 404 else "invalid_request_error",
    )
    body = error.response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]


@pytest.mark.parametrize(
    "options",
    [
        {"quality": "auto"},
        {"quality": "standard"},
        {"background": "opaque"},
        {"background": "auto"},
        {"moderation": "low"},
        {"moderation": "auto"},
        {"size": "auto"},
        {"output_compression": 100},
        {"safety_identifier": "x"},
        {"n": None, "model": None, "size": None, "quality": None, "stream": None, "partial_images": None},
    ],
    ids=str,
)
def test_what_is_harmless_is_taken(client: openai.OpenAI, options: dict[str, Any]) -> None:
    assert client.images.generate(prompt=PROMPT, **options).data


def test_edits_that_cannot_be(client: openai.OpenAI) -> None:
    def refusal(**options: Any) -> openai.APIStatusError:
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.edit(**{**FILES, "prompt": PROMPT, **options})
        return caught.value

    assert refusal(image=[FILES["image"], FILES["image"]]).param == "image"
    assert refusal(image=("x.png", encode(picture((64, 64))))).code == "invalid_image"
    assert refusal(mask=("x.png", encode(picture()))).code == "invalid_mask"
    assert refusal(input_fidelity="middle").param == "input_fidelity"
    assert refusal(markup=("x.png", b"x")).code == "unknown_field"
    assert "16x16" in refusal(mask=("x.png", encode(mask((16, 16))))).message


def test_errors_before_a_route_have_the_same_shape(live: LiveServer) -> None:
    post = live.client.post
    large = post("/v1/images/generations", json={"prompt": "x" * (2 << 20)})
    broken = post("/v1/images/generations", content=b"{", headers={"content-type": "application/json"})
    no_form = post("/v1/images/variations", json={"prompt": "x"})
    plain = post("/v1/images/edits", content=b"x", headers={"content-type": "text/plain"})
    nowhere = post("/v1/images/upscales")
    wrong = live.client.get("/v1/images/generations")
    wrong_model = live.client.delete("/v1/models/tiny")
    none = live.client.get("/v1/models/none")
    answers = [
        (413, "body_too_large", large),
        (400, "invalid_json", broken),
        (415, "unsupported_media_type", no_form),
        (415, "unsupported_media_type", plain),
        (404, "not_found", nowhere),
        (405, "method_not_allowed", wrong),
        (405, "method_not_allowed", wrong_model),
        (404, "model_not_found", none),
    ]
    for status, code, answer in answers:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code)
        assert set(error) == {"message", "type", "param", "code"}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path) -> Iterator[LiveServer]:
    """A server that paints one guided picture at a time, and can be held."""
    with LiveServer(tmp_path_factory.mktemp("slow"), weights_dir, is_gated=True, **SLOW) as server:
        yield server


def count(server: LiveServer, metric: str) -> float:
    """The sum of a metric's series whose line begins so."""
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric))


CANCELED = 'oar_jobs_total{model="tiny",outcome="canceled"'
BODY = {"prompt": PROMPT, "n": 16, "steps": NUM_TOKENS, "guidance": 3.0, "seed": 2}


@contextmanager
def a_client_that_waits(server: LiveServer, body: dict[str, Any], *headers: str) -> Iterator[None]:
    """It leaves with the context, which is entered when its job has begun."""
    begun = server.log.read_text().count("job begun")
    address, data = httpx.URL(server.url), json.dumps(body).encode()
    lines = ["POST /v1/images/generations HTTP/1.1", f"Host: {address.host}:{address.port}",
             "Content-Type: application/json", f"Content-Length: {len(data)}", *headers]  # fmt: skip
    with socket.create_connection((address.host, address.port or 80)) as connection:
        connection.sendall("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + data)
        wait_for(lambda: server.log.read_text().count("job begun") > begun)
        yield


@pytest.mark.running
@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_cancels(slow: LiveServer, stream: bool) -> None:
    """A waiting request holds no engine any longer than its client waits."""
    before = count(slow, CANCELED)
    with slow.held(3):
        with a_client_that_waits(slow, {**BODY, "stream": stream}):
            pass
        wait_for(lambda: count(slow, CANCELED) == before + 1)
    assert slow.post(wait=60).status_code == 200, "the rows are free again"
    assert "Traceback" not in slow.log.read_text()


@pytest.mark.running
def test_who_leaves_with_a_key_may_come_back(slow: LiveServer) -> None:
    accepted = count(slow, 'oar_requests_total{outcome="accepted"')
    headers = {"Idempotency-Key": "again"}
    with slow.held(3), a_client_that_waits(slow, BODY, "Idempotency-Key: again"):
        pass
    answer = slow.client.post("/v1/images/generations", json=BODY, headers=headers)
    assert len(answer.json()["data"]) == 16
    assert count(slow, 'oar_requests_total{outcome="accepted"') == accepted + 1


@pytest.mark.running
@pytest.mark.parametrize("stream", [False, True])
def test_a_job_that_somebody_cancels(slow: LiveServer, stream: bool) -> None:
    """The package is told that trying again would make another job: it does not send the request again."""
    accepted = count(slow, 'oar_requests_total{outcome="accepted"')
    begun = slow.log.read_text().count("job begun")
    caught: list[openai.APIError] = []

    def ask() -> None:
        with openai.OpenAI(base_url=f"{slow.url}/v1", api_key="none", max_retries=3, timeout=HANG_SECONDS) as client:
            try:
                list(client.images.generate(prompt=PROMPT, stream=stream, **LONG))  # pyright: ignore
            except openai.APIError as error:
                caught.append(error)

    asking = threading.Thread(target=ask)
    with slow.held(3):
        asking.start()
        wait_for(lambda: slow.log.read_text().count("job begun") > begun)
        job_id = re.findall(r"job begun job=(gen-\w+)", slow.log.read_text())[-1]
        slow.client.delete(f"/v1/generations/{job_id}")
        asking.join(HANG_SECONDS)
    assert [error.code for error in caught] == ["job_has_no_image"]
    assert count(slow, 'oar_requests_total{outcome="accepted"') == accepted + 1


@pytest.mark.running
def test_waiting_ends(tmp_path: Path, weights_dir: Path) -> None:
    settings = {**SLOW, "OAR_IMAGES_WAIT": "0.2", "OAR_STREAM_HEARTBEAT": "0.05"}
    with (
        LiveServer(tmp_path, weights_dir, is_gated=True, **settings) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=HANG_SECONDS) as client,
        server.held(),
    ):
        for stream in (False, True):
            with pytest.raises(openai.APIError) as caught:
                list(client.images.generate(prompt=PROMPT, stream=stream, **LONG))  # pyright: ignore
            assert caught.value.code == "wait_too_long"
        wait_for(lambda: count(server, CANCELED) == 2)
