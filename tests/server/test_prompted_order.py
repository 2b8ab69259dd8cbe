"""The order that a prompt decides, over HTTP."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from oar_core.models.model import ORDER_TREE
from oar_core.weights import write_manifest
from tests.server.live import SLOW, LiveServer, wait_for_patches
from tests.server.tiny import NAME, NUM_TOKENS, PROMPTED_ORDERS, PROMPTS, write_tiny_weights
from tests.waiting import HANG_SECONDS, wait_for


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


def remove_tree(weights: Path) -> None:
    (weights / NAME / ORDER_TREE).unlink()
    write_manifest(weights, NAME, {NAME: "Apache-2.0"})


@pytest.fixture
def without_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    weights = tmp_path_factory.mktemp("weights")
    write_tiny_weights(weights)
    remove_tree(weights)
    with LiveServer(tmp_path_factory.mktemp("treeless"), weights) as server:
        yield server


def test_a_model_without_an_order_tree_neither_names_nor_takes_it(without_tree: LiveServer, live: LiveServer) -> None:
    assert "prompted" in live.client.get(f"/v1/models/{NAME}").json()["orders"]
    assert "prompted" not in without_tree.client.get(f"/v1/models/{NAME}").json()["orders"]
    answer = without_tree.client.post("/v1/generations", json={"prompt": PROMPTS[0], "order": "prompted"})
    error = answer.json()["error"]
    assert (answer.status_code, error["field"]) == (422, "order"), error
    assert "'prompted'" in error["message"]


@pytest.mark.running
def test_jobs_whose_model_lost_its_orders_fail_and_say_why(tmp_path: Path) -> None:
    """One that ran and one that waited, when the next worker comes with other files of the same name."""
    weights = tmp_path / "weights"
    write_tiny_weights(weights)
    prompted = {"prompt": PROMPTS[0], "order": "prompted", "steps": NUM_TOKENS, "guidance": 2.0}
    with LiveServer(tmp_path, weights, is_gated=True, **SLOW, OAR_DRAIN_SECONDS="0") as server:
        server.gate.close(3)
        jobs = [server.submit(**prompted, n=2) for _ in range(2)]
        wait_for_patches(server, jobs[0]["id"], 1)
        server.process.send_signal(signal.SIGINT)
        wait_for(lambda: "handed back" in server.log.read_text())
        server.gate.open()
        assert server.process.wait(HANG_SECONDS) == 0
    remove_tree(weights)
    with LiveServer(tmp_path, weights, **SLOW) as server:
        logs = [server.events(job["id"]) for job in jobs]
        assert [event["reason"] for event in logs[0] if event["type"] == "restarted"] == ["model_changed"]
        for events in logs:
            assert events[-1]["type"] == "failed"
            assert events[-1]["error"]["code"] == "invalid_order"
            assert "keeps no orders for its prompts" in events[-1]["error"]["message"]
        other = server.submit(prompt=PROMPTS[0], order="random")
        assert server.events(other["id"])[-1]["type"] == "completed"
