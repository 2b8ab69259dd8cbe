"""`negative_prompt` over HTTP: what it changes, what it does not, and how it is refused."""

import io
from typing import Any

import pytest
from PIL import Image

from oar_wire.errors import InvalidRequest
from oar_wire.model import GenerationDefaults, ModelInfo, describe_options
from oar_wire.request import GenerationRequest
from server.api.validation import resolve
from server.settings import Settings
from tests.server.live import LiveServer
from tests.server.tiny import NAME

WISH = {"seed": 3, "guidance": 6, "order": "random", "steps": 5}


def painted(live: LiveServer, **wish: Any) -> tuple[dict[str, Any], bytes]:
    job = live.post(wait=20, **{**WISH, **wish}).json()
    assert job["status"] == "completed", job
    return job, live.client.get(job["images"][0]["url"], params={"metadata": "false"}).content


def test_guidance_steers_away_from_it(live: LiveServer) -> None:
    (job, steered), (other, plain) = painted(live, negative_prompt="a red circle"), painted(live)
    assert steered != plain
    assert job["params"]["negative_prompt"] == "a red circle"
    assert other["params"]["negative_prompt"] is None
    assert painted(live, negative_prompt="a red circle")[1] == steered


def test_without_guidance_or_words_it_changes_nothing(live: LiveServer) -> None:
    assert painted(live, negative_prompt="a red circle", guidance=1)[1] == painted(live, guidance=1)[1]
    assert painted(live, negative_prompt="  ")[1] == painted(live)[1]


def test_a_picture_says_it_and_only_where_there_is_one(live: LiveServer) -> None:
    job = live.post(wait=20, **WISH, negative_prompt="a red circle, small").json()
    texts = Image.open(io.BytesIO(live.png(job["id"]))).info
    assert texts["parameters"].splitlines()[1] == "Negative prompt: a red circle, small"
    assert '"negative_prompt": "a red circle, small"' in texts["oar"]
    texts = Image.open(io.BytesIO(live.png(live.post(wait=20, **WISH).json()["id"]))).info
    assert "egative" not in texts["parameters"] + texts["oar"]


def test_one_that_is_too_long_is_refused_by_its_name(live: LiveServer) -> None:
    limit = live.client.get(f"/v1/models/{NAME}").json()["max_prompt_tokens"]
    error = live.post(**WISH, negative_prompt="zq" * limit).json()["error"]
    assert (error["code"], error["field"]) == ("prompt_too_long", "negative_prompt")
    assert error["message"] == f"the negative prompt has {2 * limit + 1} tokens; {NAME} reads {limit}"


def test_a_model_that_reads_no_text_refuses_it_and_does_not_offer_it() -> None:
    model = ModelInfo(
        name="classes", grid=(2, 3), image_size=(8, 12), orders=("raster",), group_sizes=("cosine",),
        defaults=GenerationDefaults(steps=3), condition="class",
    )  # fmt: skip
    with pytest.raises(InvalidRequest, match="classes reads no text") as refusal:
        resolve(GenerationRequest.model_validate({"prompt": "7", "negative_prompt": "8"}), model, Settings())
    assert refusal.value.field == "negative_prompt"
    assert "negative_prompt" not in {option.name for option in describe_options(model)}
