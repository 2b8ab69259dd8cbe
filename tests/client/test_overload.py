"""More than a server takes: it refuses, and the clients come back when it asks them to."""

import threading
from pathlib import Path
from typing import Any

import pytest

from oar_client import Overloaded, Patience
from tests.client.conftest import Open
from tests.client.cutting import CuttingProxy
from tests.client.test_reconnect import accepted, cut_often
from tests.server.live import LiveServer
from tests.server.tiny import NUM_TOKENS
from tests.waiting import HANG_SECONDS


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path) -> Any:
    folder = tmp_path_factory.mktemp("narrow")
    with LiveServer(folder, weights_dir, is_gated=True, OAR_QUEUE_DEPTH="2", OAR_SLOTS="2") as server:
        yield server


def storm(open_client: Open, url: str, count: int) -> list[Any]:
    """`count` generations at once, from two clients."""
    clients = [
        open_client(
            url,
            patience=Patience(
                seconds=HANG_SECONDS, first_pause=0.02, longest_pause=0.5, longest_retry_after=HANG_SECONDS
            ),
        )
        for _ in range(2)
    ]
    made: list[Any] = []

    def paint(index: int) -> None:
        made.append(clients[index % 2].generate("a red circle", seed=index, n=2, steps=NUM_TOKENS))

    threads = [threading.Thread(target=paint, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in clients:
        client.close()
    return made


def test_a_storm_of_refusals_ends_with_all_pictures(open_client: Open, narrow: LiveServer) -> None:
    before = accepted(narrow)
    made = storm(open_client, narrow.url, 8)
    assert sorted(generation.seed for generation in made) == list(range(8))
    assert accepted(narrow) - before == 8, "one job each"
    assert "rejected" in narrow.client.get("/metrics").text


@pytest.mark.chaos
def test_a_storm_over_a_line_that_breaks(open_client: Open, narrow: LiveServer) -> None:
    before = accepted(narrow)
    with CuttingProxy(narrow.url, cut_often, seed=9) as proxy:
        made = storm(open_client, proxy.url, 24)
    assert sorted(generation.seed for generation in made) == list(range(24))
    assert accepted(narrow) - before == 24


@pytest.mark.running
def test_patience_ends_with_the_refusal_itself(open_client: Open, narrow: LiveServer) -> None:
    client = open_client(narrow.url, patience=Patience(seconds=0))
    long = {"n": 12, "steps": NUM_TOKENS, "guidance": 3.0}
    with narrow.held():
        jobs = [client.submit("a red circle", **long) for _ in range(2)]
        with pytest.raises(Overloaded) as caught:
            client.submit("a red circle")
        assert (caught.value.code, caught.value.status) == ("queue_full", 429)
        assert caught.value.retry_after >= 1
        for job in jobs:
            job.cancel()
        narrow.wait_until_idle()
