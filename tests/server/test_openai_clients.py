"""What unmodified clients of OpenAI's Images API send: taken as it is, or refused as they expect.

`openai_requests.json` has the requests of other packages and of other versions, byte by byte but for the pictures and
the boundaries of forms.
"""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from tests.server.live import LiveServer
from tests.server.test_edits import MASK
from tests.server.tiny import DEFAULTS, NAME, NUM_TOKENS
from tests.server.uploads import encode, mask, picture

PROMPT = "a red circle"
OWN = "20x16"
NAMES = ("gpt-image-1", "dall-e-2", "dall-e-3", "sprites-64")
ALIASES = ",".join(f"{name}={NAME}" for name in NAMES)
RECORDED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "openai_requests.json").read_text())
HEADER = "oar-warning"


def see_through() -> Image.Image:
    """A picture with a transparent part."""
    image = picture(mode="RGBA")
    image.putalpha(mask().getchannel("A"))
    return image


PICTURES = {"image": encode(picture()), "mask": encode(mask()), "alpha": encode(see_through())}
FILES = {"image": ("image.png", PICTURES["image"]), "mask": ("mask.png", PICTURES["mask"])}
URLS = {name: f"data:image/png;base64,{base64.b64encode(data).decode()}" for name, data in PICTURES.items()}


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path) -> Iterator[LiveServer]:
    """A server whose model has OpenAI's names."""
    with LiveServer(tmp_path_factory.mktemp("named"), weights_dir, OAR_MODEL_ALIASES=ALIASES) as server:
        yield server


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("strict"), weights_dir, OAR_OPENAI_STRICT="true") as server:
        yield server


@pytest.fixture
def client(named: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{named.url}/v1", api_key="none", max_retries=0, timeout=20) as client:
        yield client


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def generate(server: LiveServer, **body: Any) -> httpx.Response:
    return server.client.post("/v1/images/generations", json={"prompt": PROMPT, **body})


def edit(server: LiveServer, **body: Any) -> httpx.Response:
    return server.client.post("/v1/images/edits", json={"prompt": PROMPT, **body})


def params(server: LiveServer, answer: httpx.Response) -> dict[str, Any]:
    """Of the job that was made."""
    assert answer.status_code == 200, answer.text
    return server.client.get(f"/v1/generations/{answer.json()['oar']['job_id']}").json()["params"]


def refusal(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["code"], error["param"]


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda request: f"{request['client']} {request['path']}")
def test_what_other_clients_send(named: LiveServer, recorded: dict[str, Any]) -> None:
    body = recorded["body"].encode()
    for name, data in PICTURES.items():
        body = body.replace(f"<<{name}>>".encode(), data)
    headers = {"Content-Type": recorded["content_type"]} if body else {}
    answer = named.client.request(recorded["method"], recorded["path"], content=body, headers=headers)
    assert answer.status_code == recorded["status"], answer.text
    if answer.status_code != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert ".completed" in answer.text
    elif recorded["path"].startswith("/v1/images/"):
        for image in answer.json()["data"]:
            wanted = "url" if '"response_format": "url"' in recorded["body"] else "b64_json"
            made = named.client.get(image["url"]).content if wanted == "url" else base64.b64decode(image["b64_json"])
            assert Image.open(io.BytesIO(made)).size == (20, 16)
            # Packages of 2023 and LangChain read an address where they name no format.
            assert ("url" in image) == ("b64_json" not in recorded["body"])


@pytest.mark.parametrize("size", ["256x256", "512x512", "1024x1024", "1536x1024", "1024x1536", "1792x1024", "1x1"])
def test_another_size_is_served_at_the_models_own_and_said_so(named: LiveServer, size: str) -> None:
    answer = generate(named, size=size)
    body = answer.json()
    assert (body["size"], opened(body["data"][0]["b64_json"]).size) == (OWN, (20, 16))
    (warning,) = body["oar"]["warnings"]
    assert OWN in warning
    assert size in warning
    assert answer.headers[HEADER] == warning
    assert "size" in warning


@pytest.mark.parametrize("size", ["auto", OWN, None])
def test_nothing_is_said_where_all_is_kept(named: LiveServer, size: str | None) -> None:
    answer = generate(named, size=size, quality="high", background="opaque")
    assert answer.json()["oar"]["warnings"] == []
    assert HEADER not in answer.headers


def test_each_thing_that_is_not_kept_is_said(named: LiveServer) -> None:
    answer = generate(named, size="1024x1024", style="vivid", background="transparent", n=2)
    assert [warning.partition(":")[0] for warning in answer.json()["oar"]["warnings"]] == [
        "size",
        "background",
        "style",
    ]
    assert answer.headers.get_list(HEADER) == answer.json()["oar"]["warnings"]
    assert answer.json()["background"] == "opaque"
    assert edit(named, image=URLS["alpha"], input_fidelity="high").headers[HEADER].startswith("input_fidelity: ")


def test_a_stream_says_it_before_its_first_event(named: LiveServer) -> None:
    answer = generate(named, size="1024x1024", stream=True, partial_images=1)
    assert answer.headers[HEADER].startswith("size: ")
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert [event["size"] for event in events] == [OWN, OWN]
    assert all(event["oar"]["warnings"] for event in events)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": "1024x1024"}, "size"),
        ({"background": "transparent"}, "background"),
        ({"style": "natural"}, "style"),
        ({"style": "natural", "size": "1024x1024"}, "size"),
    ],
    ids=str,
)
def test_a_strict_server_refuses_them(strict: LiveServer, options: dict[str, Any], field: str) -> None:
    assert refusal(generate(strict, **options)) == (400, f"invalid_{field}", field)
    form = strict.client.post("/v1/images/edits", data={"prompt": PROMPT, **options}, files=FILES)
    assert refusal(form) == (400, f"invalid_{field}", field)


def test_a_strict_server_takes_what_it_can_keep(strict: LiveServer) -> None:
    assert generate(strict, size=OWN, quality="hd", background="auto").status_code == 200
    assert refusal(edit(strict, image=URLS["image"])) == (400, "missing_field", "mask")
    assert refusal(edit(strict, image=URLS["alpha"], input_fidelity="high"))[1] == "invalid_input_fidelity"


@pytest.mark.parametrize(
    ("quality", "steps", "told"),
    [
        ("low", 4, "low"),
        (None, 8, "medium"),
        ("auto", 8, "medium"),
        ("standard", 8, "medium"),
        ("medium", 8, "medium"),
        ("high", 16, "high"),
        ("hd", 16, "high"),
    ],
)
def test_quality_is_a_number_of_steps(named: LiveServer, quality: str | None, steps: int, told: str) -> None:
    assert DEFAULTS["steps"] == 8
    answer = generate(named, quality=quality)
    assert params(named, answer)["steps"] == steps
    assert answer.json()["quality"] == told
    assert params(named, generate(named, quality=quality, steps=5))["steps"] == 5, "what is said exactly counts"


def test_a_model_has_more_names_than_one(named: LiveServer, client: openai.OpenAI) -> None:
    for name in NAMES:
        answer = generate(named, model=name, seed=7)
        assert (params(named, answer)["model"], answer.json()["oar"]["model"]) == (NAME, NAME)
        assert client.models.retrieve(name).id == NAME
    assert named.post(model="gpt-image-1").status_code == 202
    assert [model.id for model in client.models.list()] == [NAME]
    assert (client.models.retrieve(NAME).model_extra or {})["aliases"] == sorted(NAMES)
    assert refusal(generate(named, model="gpt-image-2")) == (404, "model_not_found", "model")


def test_a_bad_request_is_one_to_the_package(client: openai.OpenAI) -> None:
    bad: list[dict[str, Any]] = [
        {"n": 0},
        {"size": "big"},
        {"prompt": " "},
        {"extra_body": {"cfg_scale": 3}},
        {"extra_headers": {"Idempotency-Key": ""}},
    ]
    for options in bad:
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.generate(**{"prompt": PROMPT, **options})
        assert caught.value.code
    headers = {"Idempotency-Key": "bad-request"}
    client.images.generate(prompt=PROMPT, extra_headers=headers)
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="another", extra_headers=headers)
    assert caught.value.code == "idempotency_key_reused"
    with pytest.raises(openai.BadRequestError, match="cfg_scale"):
        client.images.generate(prompt=PROMPT, extra_body={"cfg_scale": 3})


def test_an_edit_as_json(named: LiveServer) -> None:
    form = named.client.post("/v1/images/edits", data={"prompt": PROMPT, "seed": "3"}, files=FILES)
    bodies: list[dict[str, Any]] = [
        {"images": [{"image_url": URLS["image"]}], "mask": {"image_url": URLS["mask"]}},
        {"images": [URLS["image"]], "mask": URLS["mask"]},
        {"image": URLS["image"].partition(",")[2], "mask": {"image_url": URLS["mask"]}},
    ]
    pixels = np.asarray(picture())
    for body in bodies:
        answer = edit(named, **body, seed=3, output_format="png", n=1)
        made = answer.json()["data"][0]["b64_json"]
        assert made == form.json()["data"][0]["b64_json"]
        assert np.array_equal(np.asarray(opened(made))[~MASK], pixels[~MASK])
    streamed = edit(named, images=[{"image_url": URLS["alpha"]}], stream=True, partial_images=1)
    assert [line for line in streamed.text.splitlines() if line.startswith("event: ")] == [
        "event: image_edit.partial_image",
        "event: image_edit.completed",
    ]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "missing_field", "images"),
        ({"images": []}, "invalid_images", "images"),
        ({"images": [{}]}, "invalid_image", "image"),
        ({"images": [{"file_id": "file-1"}]}, "invalid_image", "image"),
        ({"images": [{"image_url": "https://elsewhere.example/x.png"}]}, "invalid_image", "image"),
        ({"images": [{"image_url": "file:///etc/passwd"}]}, "invalid_image", "image"),
        ({"images": [{"image_url": "data:image/png;base64,!"}]}, "invalid_image", "image"),
        ({"images": [{"image_url": URLS["image"], "detail": "high"}]}, "unknown_field", "images"),
        ({"images": [URLS["image"]] * 2}, "invalid_image", "images"),
        ({"images": [URLS["image"]], "image": URLS["image"]}, "invalid_image", "images"),
        ({"image": URLS["image"], "mask": {"file_id": "file-1"}}, "invalid_mask", "mask"),
        ({"image": URLS["image"], "mask": 3}, "invalid_mask", "mask"),
        ({"image": URLS["image"], "prompt": ""}, "invalid_prompt", "prompt"),
        ({"image": URLS["image"], "what": 1}, "unknown_field", "what"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_edit_as_json_that_cannot_be(named: LiveServer, body: dict[str, Any], code: str, field: str) -> None:
    assert refusal(edit(named, **body)) == (400, code, field)


def test_an_edit_without_a_mask_changes_the_whole_picture(named: LiveServer, client: openai.OpenAI) -> None:
    """OpenAI's newer models need no mask."""
    answer = client.images.edit(image=FILES["image"], prompt=PROMPT)
    facts = (answer.model_extra or {})["oar"]
    assert facts["warnings"][0].startswith("mask: ")
    made = named.client.get(f"/v1/generations/{facts['job_id']}").json()["params"]["edit"]
    assert (made["mode"], made["strength"], made["num_kept"]) == ("vary", 0.6, NUM_TOKENS - 12)
    own = client.images.edit(image=FILES["image"], prompt=PROMPT, extra_body={"strength": 0.2})
    assert (own.model_extra or {})["oar"]["warnings"] == []


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_a_variation(named: LiveServer, client: openai.OpenAI) -> None:
    answer = client.images.create_variation(image=FILES["image"], n=2, size="256x256", user="somebody")
    assert answer.data is not None
    assert len({image.b64_json for image in answer.data} | {encode(picture()).hex()}) == 3, "two pictures, both new"
    assert all(named.client.get(image.url or "").status_code == 200 for image in answer.data)
    job = named.client.get(f"/v1/generations/{(answer.model_extra or {})['oar']['job_id']}").json()["params"]
    assert (job["prompt"], job["guidance"]) == ("", 1.0), "nothing to guide to"
    assert (job["edit"]["mode"], job["edit"]["num_kept"]) == ("vary", NUM_TOKENS - 12)
    bare = client.images.create_variation(image=FILES["image"], response_format="b64_json").data
    assert bare is not None
    assert (bare[0].url, opened(bare[0].b64_json or "").size) == (None, (20, 16))


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_a_variation_with_our_options(named: LiveServer, client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"prompt": PROMPT, "seed": 3, "strength": 0.2, "guidance": 2.0}
    varied = client.images.create_variation(image=FILES["image"], extra_body=options).data
    edited = client.images.edit(image=FILES["image"], prompt=PROMPT, extra_body=options).data
    assert varied is not None
    assert edited is not None
    assert varied[0].b64_json == edited[0].b64_json
    post = named.client.post
    assert refusal(post("/v1/images/variations", files=FILES)) == (400, "unknown_field", "mask")
    assert refusal(post("/v1/images/variations", data={"n": 1}, files={})) in (
        (400, "missing_field", "image"),
        (415, "unsupported_media_type", None),
    )
    odd = {"image": ("x.png", encode(picture((8, 8))))}
    assert refusal(post("/v1/images/variations", files=odd)) == (400, "invalid_image", "image")


def test_an_answer_has_what_is_asked_for_and_both_where_nothing_is(named: LiveServer) -> None:
    (both,) = generate(named, seed=7).json()["data"]
    assert both["url"].startswith(f"{named.url}/v1/generations/")
    assert httpx.get(both["url"]).content == base64.b64decode(both["b64_json"])
    (link,) = generate(named, seed=7, response_format="url").json()["data"]
    assert set(link) == {"url"}
    (direct,) = generate(named, seed=7, response_format="b64_json").json()["data"]
    assert set(direct) == {"b64_json"}
