"""Weights of a worker that makes pictures and videos."""

from pathlib import Path

from oar_core.weights import write_manifest
from tests.models.videos import NAME as VIDEO
from tests.models.videos import write_video_model
from tests.server.tiny import NAME, write_tiny_weights

MODELS = f"{NAME},{VIDEO}"


def write_both(folder: Path) -> None:
    write_tiny_weights(folder)
    write_video_model(folder / VIDEO)
    write_manifest(folder, NAME, dict.fromkeys((NAME, VIDEO), "MIT"))
