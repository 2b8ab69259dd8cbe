"""The order that a prompt decides, over HTTP."""

from collections.abc import Iterator

import pytest

from oar_core.models.model import ORDER_TREE
from oar_core.weights import write_manifest
from tests.server.live import LiveServer
from tests.server.tiny import NAME, NUM_TOKENS, PROMPTED_ORDERS, PROMPTS, write_tiny_weights


def positions(live: LiveServer, **asked: object) -> list[list[int]]:
    """Of each image of a job, in the order in which they were decoded."""
    answer = live.client.post(
        "/v1/generations", json={"order": "prompted", "steps": NUM_TOKENS, **asked}, headers={"prefer": "wait=60"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["params"]["order"] == "prompted"
    found: list[list[int]] = [[] for _ in range(answer.json()["params"]["n"])]
    for event in live.events(answer.json()["id"]):
        if event["type"] == "patches":
            found[event["image"]].extend(patch["position"] for patch in event["patches"])
    return found


@pytest.mark.parametrize(("prompt", "order"), list(zip(PROMPTS, PROMPTED_ORDERS, strict=True)))
def test_every_picture_of_a_prompt_has_its_order(live: LiveServer, prompt: str, order: tuple[int, ...]) -> None:
    assert positions(live, prompt=prompt, n=2, guidance=2.0) == [list(order)] * 2
    assert positions(live, prompt=prompt, guidance=2.0, negative_prompt=PROMPTS[0]) == [list(order)]


@pytest.fixture
def without_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    weights = tmp_path_factory.mktemp("weights")
    write_tiny_weights(weights)
    (weights / NAME / ORDER_TREE).unlink()
    write_manifest(weights, NAME, {NAME: "Apache-2.0"})
    with LiveServer(tmp_path_factory.mktemp("treeless"), weights) as server:
        yield server


def test_a_model_without_an_order_tree_neither_names_nor_takes_it(without_tree: LiveServer, live: LiveServer) -> None:
    assert "prompted" in live.client.get(f"/v1/models/{NAME}").json()["orders"]
    assert "prompted" not in without_tree.client.get(f"/v1/models/{NAME}").json()["orders"]
    answer = without_tree.client.post("/v1/generations", json={"prompt": PROMPTS[0], "order": "prompted"})
    error = answer.json()["error"]
    assert (answer.status_code, error["field"]) == (422, "order"), error
    assert "'prompted'" in error["message"]
