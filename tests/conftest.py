"""Fixtures of more than one package."""

import signal

import pytest
import torch

from oar_core.sampling.pipeline import Pipeline
from oar_core.weights import Manifest
from tests.server.tiny import NAME, write_tiny_weights


def pytest_configure() -> None:
    """One thread, as the servers that tests start have: convolutions may round differently under another number.

    A shell that starts us in the background has SIGINT ignored, which our children would inherit; some are sent one.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A model with random weights on a 4x5 grid, loaded from files as a shipped one is."""
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_weights(folder)
    return Pipeline.load(Manifest.load(folder).folder(NAME), "cpu", torch.float32)
