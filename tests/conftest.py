"""Fixtures of more than one package."""

import signal
from pathlib import Path

import pytest
import torch

from oar_core.models.load import load_model
from oar_core.models.model import Model
from oar_core.weights import Manifest
from tests.server.tiny import NAME, write_tiny_weights


def pytest_configure() -> None:
    """One thread, as the servers that tests start have: convolutions may round differently under another number.

    A shell that starts us in the background has SIGINT ignored, which our children would inherit; some are sent one.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
