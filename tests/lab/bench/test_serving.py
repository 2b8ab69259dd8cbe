"""The benchmark of a whole server: on a server of its own, on one that runs, and what it makes of refusals."""

import json
import re
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner

from oar_cli import main
from oar_lab.bench.replay import poisson_times
from oar_lab.bench.server.traffic import wishes
from tests.server.live import LiveServer
from tests.server.tiny import NAME
from tests.waiting import wait_for

SMALL = ("--threads", "1", "--device", "cpu", "--slots", "8", "--steps", "4", "--steps", "8", "--requests", "8")


def told(weights_dir: Path, *words: str) -> dict:
    result = CliRunner().invoke(main, ["bench", "serving", "--weights", str(weights_dir), *SMALL, *words])
    assert result.exit_code == 0, result.output
    *lines, last = result.stdout.splitlines()
    assert lines[0].startswith("| rate | arriving/s |")
    return json.loads(last, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_server_of_its_own_is_compared_with_the_engine_alone(weights_dir):
    report = told(weights_dir, "--rate", "20", "--rate", "inf", "--bound", "60")
    assert [row["rate"] for row in report["rows"]] == [20, None]
    for row in report["rows"]:
        first, latency = row["first_patch"], row["latency"]
        assert 0 < first[0] <= first[1] <= first[2]
        assert first[0] < latency[0] <= latency[1] <= latency[2]
        assert row["goodput"] == pytest.approx(row["completed"])
        assert (row["refused"], row["errors"]) == (0, {})
        assert set(row["cpu_seconds"]) == {"api", "worker", "redis", "client"}
    best = max(row["completed"] for row in report["rows"])
    assert report["ratio"] == pytest.approx(best / report["engine"]["images_per_second"])
    least = min(row["cpu_seconds"]["worker"] for row in report["rows"])
    assert report["cpu_ratio"] == (pytest.approx(report["engine"]["cpu_seconds"] / least) if least else None)
    assert report["first_patch_aim"] == pytest.approx(2 * report["engine"]["step_seconds"] + 0.02)


@pytest.mark.running
def test_a_running_server_is_measured_and_its_refusals_are_counted(weights_dir, tmp_path):
    with LiveServer(tmp_path, weights_dir, is_gated=True, OAR_QUEUE_DEPTH="1") as live:
        live.gate.close()  # the first job is held until another one was refused
        opening = Thread(target=open_after_a_refusal, args=(live,))
        opening.start()
        report = told(weights_dir, "--url", live.url, "--rate", "inf", "--order", "raster")
        opening.join()
        (row,) = report["rows"]
        assert row["refused"] > 0
        assert row["completed"] > 0
        assert set(row["cpu_seconds"]) == {"client"}
        report = told(weights_dir, "--url", live.url, "--rate", "inf", "--concurrency", "1", "--order", "raster")
        assert report["rows"][0]["refused"] == 0


def open_after_a_refusal(live: LiveServer) -> None:
    refused = r'^oar_requests_total\{outcome="rejected"\} [1-9]'
    wait_for(lambda: re.search(refused, live.client.get("/metrics").text, re.M))
    live.gate.open()


def test_an_order_that_the_model_does_not_know_is_a_sentence(weights_dir):
    words = ["bench", "serving", "--weights", str(weights_dir), *SMALL, "--order", "sideways"]
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "order 'sideways' is not one of" in result.output


def test_the_traffic_is_the_same_for_one_seed_and_mixes_all_kinds():
    mix = wishes(12, NAME, ["a", "b"], (4, 8), ("raster", "random", "halton"), previews=True, seed=3)
    assert mix == wishes(12, NAME, ["a", "b"], (4, 8), ("raster", "random", "halton"), previews=True, seed=3)
    assert mix != wishes(12, NAME, ["a", "b"], (4, 8), ("raster", "random", "halton"), previews=True, seed=4)
    kinds = [(wish.steps, wish.order) for wish in mix]
    assert {kinds.count(kind) for kind in kinds} == {2}
    times = poisson_times(400, 10.0, seed=1)
    assert times == sorted(times)
    assert times[-1] == pytest.approx(40, rel=0.2)
    assert poisson_times(3, float("inf"), seed=1) == [0, 0, 0]


def test_the_queue_is_measured_at_each_depth():
    result = CliRunner().invoke(main, ["bench", "queue", "--waiting", "60", "--waiting", "2"])
    assert result.exit_code == 0, result.output
    *lines, last = result.stdout.splitlines()
    assert lines[0].startswith("| jobs waiting | submit us |")
    rows = json.loads(last)["rows"]
    assert [row.pop("waiting") for row in rows] == [2, 60]
    assert all(value > 0 for row in rows for value in row.values())


def test_a_queue_is_held_at_each_length_while_pictures_are_made(weights_dir):
    words = ["--slots", "4", "--waiting", "12", "--waiting", "3", "--steps", "20", "--seconds", "1"]
    result = CliRunner().invoke(main, ["bench", "backlog", "--weights", str(weights_dir), "--device", "cpu", *words])
    assert result.exit_code == 0, result.output
    *lines, last = result.stdout.splitlines()
    assert lines[0].startswith("| jobs waiting | pictures/s |")
    few, many = json.loads(last)["rows"]
    assert (few["waiting"], many["waiting"], few["relative"]) == (3, 12, 1)
    assert few["completed"] > 0 < many["completed"]
    assert {"api", "worker", "redis"} <= set(many["cpu_seconds"])
