"""`oar eval export` by a running server, whose workers share the queue."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from oar_client import Client
from oar_core.weights import write_manifest
from tests.models.folders import write_golden_model, write_unconditional_model
from tests.server.live import LiveServer
from tests.waiting import HANG_SECONDS, wait_for

COUNT = 13


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "weights"
    write_golden_model("lpd", folder / "lpd")
    write_unconditional_model(folder / "plain")
    write_manifest(folder, "lpd", {"lpd": "MIT", "plain": "MIT"})
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[LiveServer]:
    """Two workers on one queue."""
    settings = {"OAR_WORKERS": "2", "OAR_SLOTS": "4", "OAR_DETERMINISTIC": "true", "OAR_MODELS": "lpd,plain"}
    with LiveServer(tmp_path_factory.mktemp("workers"), weights, is_gated=True, **settings) as live:
        yield live


def command(folder: Path, *more: str) -> list[str]:
    words = ["--run", str(folder / "run"), "--samples", str(COUNT), "--batch", "2", "--seed", "7"]
    return [sys.executable, "-m", "oar_cli", "eval", "export", *words, "--out", str(folder / "out.npz"), *more]


def export(folder: Path, *more: str) -> bytes:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(folder, *more), env=environment, check=True, timeout=HANG_SECONDS)
    return (folder / "out.npz").read_bytes()


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("run/exports/*/*.npy"))


@pytest.mark.running
def test_two_workers_make_the_file_of_one_process_and_so_does_an_export_that_was_killed(
    server: LiveServer, weights: Path, tmp_path: Path
) -> None:
    for name in ("here", "there", "killed"):
        (tmp_path / name).mkdir()
    here = export(tmp_path / "here", "--weights", str(weights), "--deterministic", "--device", "cpu")
    there = export(tmp_path / "there", "--url", server.url, "--in-flight", "5")
    assert there == here
    with np.load(tmp_path / "there" / "out.npz") as stored:
        assert stored["arr_1"].tolist() == [*range(10), 0, 1, 2]
        assert stored["arr_0"].shape == (COUNT, 8, 8, 3)
        assert len(np.unique(stored["arr_0"], axis=0)) == COUNT
    told = json.loads((tmp_path / "there" / "out.json").read_text())
    assert (told["model"]["name"], told["settings"]["server"]) == ("lpd", True)

    killed = command(tmp_path / "killed", "--url", server.url, "--in-flight", "2")
    with server.held(12):
        process = subprocess.Popen(killed)
        wait_for(lambda: parts(tmp_path / "killed"))
        process.send_signal(signal.SIGKILL)
        process.wait(HANG_SECONDS)
    assert not (tmp_path / "killed" / "out.npz").exists()
    assert 0 < len(parts(tmp_path / "killed")) < COUNT // 2
    assert export(tmp_path / "killed", "--url", server.url) == here


def test_a_model_without_classes_or_captions_is_exported_too(server: LiveServer, weights: Path, tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    more = ("--model", "plain", "--steps", "3")
    here = export(tmp_path / "here", "--weights", str(weights), "--deterministic", "--device", "cpu", *more)
    assert export(tmp_path / "there", "--url", server.url, *more) == here


def test_a_server_that_refuses_says_so_and_nothing_is_left_under_way(server: LiveServer, tmp_path: Path) -> None:
    words = command(tmp_path, "--url", server.url, "--order", "confidence")
    result = subprocess.run(words, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert result.returncode == 1
    assert "confidence" in result.stderr
    assert "Traceback" not in result.stderr
    with Client(server.url) as client:
        assert client.jobs() == []


def test_the_client_lists_classes(server: LiveServer) -> None:
    with Client(server.url) as client:
        assert client.classes("lpd")[:2] == ("tench", "goldfish")
        assert client.classes("plain") == ()
