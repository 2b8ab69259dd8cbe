"""Sizes of groups over HTTP: a list of a request, and a model's own table."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from oar_core.models.model import CONFIG, GROUP_TABLES
from oar_core.order.plan import group_sizes
from oar_core.weights import write_manifest
from tests.server.live import LiveServer
from tests.server.tiny import DEFAULTS, NAME, NUM_TOKENS, write_tiny_weights

OWN = [1, 1, 1, 1, 2, 3, 5, 6]
ASKED = {"prompt": "a red circle", "seed": 7}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    weights = tmp_path_factory.mktemp("weights")
    write_tiny_weights(weights)
    path = weights / NAME / CONFIG
    tables = {DEFAULTS["order"]: {str(len(OWN)): OWN}}
    path.write_text(json.dumps({**json.loads(path.read_text()), GROUP_TABLES: tables}))
    write_manifest(weights, NAME, {NAME: "Apache-2.0"})
    with LiveServer(tmp_path_factory.mktemp("sizes"), weights) as server:
        yield server


def draw(live: LiveServer, **asked: Any) -> tuple[dict[str, Any], list[int], list[tuple[int, int]]]:
    """The job's parameters, how many positions each step filled, and the tokens by position."""
    answer = live.client.post("/v1/generations", json={**ASKED, **asked}, headers={"prefer": "wait=60"})
    assert answer.status_code == 200, answer.text
    job = answer.json()
    patches = [event for event in live.events(job["id"]) if event["type"] == "patches"]
    filled = Counter(event["step"] for event in patches for _ in event["patches"])
    tokens = sorted((patch["position"], patch["token"]) for event in patches for patch in event["patches"])
    assert len(tokens) == NUM_TOKENS
    return job["params"], [filled[step] for step in sorted(filled)], tokens


def test_each_step_fills_what_the_list_says(live: LiveServer) -> None:
    params, filled, _ = draw(live, group_sizes=[10, 1, 5, 4])
    assert filled == params["group_sizes"] == [10, 1, 5, 4]
    assert params["steps"] == 4


def test_a_list_is_the_schedule_that_has_its_sizes(live: LiveServer) -> None:
    cosine = list(group_sizes("cosine", 5, NUM_TOKENS))
    by_name = draw(live, steps=5, group_sizes="cosine")
    by_list = draw(live, group_sizes=cosine)
    assert by_name[1] == cosine
    assert by_name[1:] == by_list[1:]


def test_a_models_own_sizes_are_the_default_where_order_and_steps_match(live: LiveServer) -> None:
    for asked in ({}, {"group_sizes": "fitted"}):
        params, filled, _ = draw(live, **asked)
        assert filled == params["group_sizes"] == OWN
    assert draw(live, group_sizes="cosine")[1] == list(group_sizes("cosine", 8, NUM_TOKENS))
    assert draw(live, steps=4)[0]["group_sizes"] == "cosine"
    assert draw(live, order="raster")[0]["group_sizes"] == "cosine"


def test_the_parameters_of_a_picture_make_it_again(live: LiveServer) -> None:
    params, _, tokens = draw(live)
    asked = {name: params[name] for name in ("order", "steps", "group_sizes", "guidance", "seed")}
    assert draw(live, **asked)[2] == tokens


def test_the_card_of_the_model_tells_its_tables(live: LiveServer) -> None:
    (model,) = live.client.get("/v1/models").json()["data"]
    assert model["group_tables"] == {DEFAULTS["order"]: {str(len(OWN)): OWN}}
    assert model["group_sizes"][0] == "fitted"
    (option,) = (option for option in model["options"] if option["name"] == "group_sizes")
    assert option["default"] == "fitted"
