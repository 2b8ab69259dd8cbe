"""`oar top`: one snapshot as JSON from a live server, and what the screen says."""

import json
import math
from dataclasses import asdict

import pytest
from click.testing import CliRunner

from oar_cli import main
from oar_cli.top import Look, ModelRow, ServerSnapshot, WorkerRow, median, read_look, screen_lines, summarise
from tests.ports import nowhere
from tests.server.live import LiveServer
from tests.server.tiny import NAME, NUM_TOKENS
from tests.waiting import wait_for

PATCHES = "oar_patches_generated_total"


def test_one_snapshot_of_a_live_server(live: LiveServer) -> None:
    """Between two looks that know what was done: how fast that was is no matter."""
    live.wait_until_idle()
    before = read_look(live.client)
    for _ in range(4):
        assert live.post(wait=60).json()["status"] == "completed"
    wait_for(lambda: read_look(live.client).total(PATCHES) - before.total(PATCHES) >= 4 * NUM_TOKENS)
    now = read_look(live.client)
    result = CliRunner().invoke(main, ["top", "--json", "--url", live.url, "--interval", "0.1"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    snapshot = asdict(summarise(live.url, now, before))
    assert {key: type(value) for key, value in told.items()} == {
        key: list if isinstance(value, tuple) else type(value) for key, value in snapshot.items()
    }
    assert (told["url"], told["accepted"]) == (live.url, snapshot["accepted"])
    assert [model.keys() for model in told["models"]] == [model.keys() for model in snapshot["models"]]
    assert snapshot["url"] == live.url
    assert snapshot["accepted"] >= 4
    (model,) = snapshot["models"]
    assert (model["name"], model["workers"], model["waiting"], model["slots"]) == (NAME, 1, 0, 64)
    assert model["patches_per_second"] > 0
    assert model["first_patch"] > 0
    assert model["e2e"] > 0
    assert model["padding"] == 0, "pictures one after another pad nothing"
    (row,) = snapshot["workers"]
    assert row["name"].startswith("worker-")
    assert row["steps_per_second"] > 0


def test_a_server_that_is_not_there() -> None:
    with nowhere() as url:
        result = CliRunner().invoke(main, ["top", "--json", "--url", url])
    assert result.exit_code == 75
    assert url in result.output


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, None),
        ({1.0: 0, math.inf: 0}, None),
        ({1.0: 4, 2.0: 4, math.inf: 4}, 0.5),
        ({1.0: 1, 2.0: 3, math.inf: 4}, 1.5),
        ({1.0: 1, math.inf: 4}, 1.0),
    ],
)
def test_the_median_of_a_histogram(counts: dict[float, float], expected: float | None) -> None:
    assert median(counts) == expected


def text(patches: int) -> str:
    return (
        f'oar_patches_generated_total{{model="m",worker="a"}} {patches}\n'
        'oar_cache_slots{model="m",worker="a"} 8\noar_queue_depth{model="m"} 5\noar_queue_waiting{model="m"} 2\n'
    )


def test_rates_are_over_the_interval_and_survive_a_restart() -> None:
    first, second, restarted = (Look(text(count), ["m"], at) for count, at in ((100, 10.0), (300, 14.0), (40, 16.0)))
    assert summarise("u", first, None).models[0].patches_per_second is None
    assert summarise("u", second, first).models[0].patches_per_second == 50
    assert summarise("u", restarted, second).models[0].patches_per_second == 20
    row = summarise("u", second, first).models[0]
    assert (row.waiting, row.running, row.slots) == (2, 3, 8)


def test_the_screen_fits_the_terminal() -> None:
    model = ModelRow("sprites-64", 1, 3, 12, 1.5, 32, 64, 1234.5, 12.25, 0.0312, 1.5, 0.081)
    worker = WorkerRow("worker-0123", 12, 32, 64, 80.0, 1234.5, 0.0125)
    snapshot = ServerSnapshot("http://127.0.0.1:8000", 0.0, 10, 1, 3, (model,), (worker,))
    lines = screen_lines(snapshot, 200)
    assert any("sprites-64" in line and "32/64" in line and "31.2 ms" in line and "8%" in line for line in lines)
    assert any("worker-0123" in line and "██████░░░░░░" in line and "12.5 ms" in line for line in lines)
    narrow = screen_lines(snapshot, 40)
    assert max(len(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) for line in narrow) <= 40
    assert "no worker is alive" in screen_lines(ServerSnapshot("u", 0.0, 0, 0, 0, (), ()), 80)
