"""Fixtures of more than one package, and what makes a test the same on every machine and in any company."""

import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from oar_core.models.load import load_model
from oar_core.models.model import Model
from oar_core.weights import Manifest
from tests.server.gate import Gate
from tests.server.tiny import NAME, write_tiny_weights

OF_TESTS = {"OAR_TEST_DATA", "OAR_CHAOS_SCALE"}
OF_THE_MACHINE = {"REDIS_URL", "NO_COLOR", "COLORTERM", "PYTHONWARNINGS"}
OURS = {"TERM": "xterm", "COLUMNS": "80", "LINES": "24", "PYTHONUTF8": "1"}


def pytest_configure() -> None:
    """One thread, as the servers that tests start have: convolutions may round differently under another number.

    A shell that starts us in the background has SIGINT ignored, which our children would inherit; some are sent one.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _leave_the_environment_out()
    # How long an example takes is the machine's affair.
    settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("tests")


def _leave_the_environment_out() -> None:
    """Settings, proxies and the terminal of whoever runs the tests reach neither the tests nor their children.

    The Makefile sets PYTHONUTF8 for this process, which has begun already.
    """
    for name in tuple(os.environ):
        is_setting = name.startswith("OAR_") and name not in OF_TESTS
        if is_setting or name in OF_THE_MACHINE or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ.update(OURS)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Before its fixtures are made: what draws from a global generator draws the same in any order of the tests."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _held_jobs_are_marked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds a running job says so, and is repeated by `make repeat`."""
    if request.node.get_closest_marker("running") is None:
        monkeypatch.setattr(Gate, "close", _not_marked)


def _not_marked(_gate: Gate, _steps: int = 0) -> None:
    raise AssertionError("a test that holds a running job is marked `running`")


@pytest.fixture(scope="session")
def weights_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights on a 4x5 grid, in the files that a real one ships in; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_weights(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_pipeline(weights_dir: Path) -> Model:
    """That model, loaded."""
    return load_model(Manifest.load(weights_dir).folder(NAME), "cpu", torch.float32)
