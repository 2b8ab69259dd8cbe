"""What a worker makes of its settings of number format and threads."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from server.settings import Settings
from server.worker import models
from server.worker.models import LoadedModel, load_models


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def loaded(weights_dir: Path, data_dir: Path, **settings: object) -> LoadedModel:
    (model,) = load_models(
        Settings.model_validate({"weights_dir": weights_dir, "data_dir": data_dir, "device": "cpu", **settings})
    )
    return model


@pytest.mark.parametrize(("asked", "told"), [("auto", {"float32"}), ("fastest", {"float32", "bfloat16"})])
def test_the_number_format_is_the_one_asked_for(weights_dir, tmp_path, asked, told):
    model = loaded(weights_dir, tmp_path, dtype=asked, calibrate=asked != "fastest")
    assert model.fingerprint.dtype in told
    assert len(list((tmp_path / "calibration").iterdir())) == 1


def test_a_large_network_is_measured_unless_asked_otherwise(weights_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "LARGE_NETWORK", 1 << 10)
    loaded(weights_dir, tmp_path / "not", calibrate=False)
    assert not (tmp_path / "not" / "calibration").exists()
    loaded(weights_dir, tmp_path)
    assert len(list((tmp_path / "calibration").iterdir())) == 1


@pytest.mark.parametrize(
    "settings",
    [{"deterministic": True, "dtype": "fastest"}, {"calibrate": False}, {}, {"dtype": "int8", "calibrate": True}],
)
def test_nothing_is_measured_where_that_was_asked_for(weights_dir, tmp_path, settings):
    model = loaded(weights_dir, tmp_path, **settings)
    assert model.fingerprint.dtype == ("int8" if "int8" in settings.values() else "float32")
    assert not (tmp_path / "calibration").exists()


def test_the_threads_asked_for_are_taken(weights_dir, tmp_path):
    loaded(weights_dir, tmp_path, threads=2)
    assert torch.get_num_threads() == 2


def test_workers_share_the_cores(weights_dir, tmp_path, monkeypatch):
    torch.set_num_threads(2)
    monkeypatch.setattr(models, "usable_cores", lambda: 2)
    loaded(weights_dir, tmp_path, workers=2)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("settings", "is_guarded"),
    [
        ({"calibrate": True}, True),
        ({"calibrate": True, "threads": 2}, False),
        ({"calibrate": True, "deterministic": True}, False),
        ({"calibrate": "auto"}, False),
        ({}, False),
    ],
)
def test_threads_are_guarded_where_that_is_asked_for_and_their_number_and_sameness_are_not(settings, is_guarded):
    guard = models.thread_guard(Settings.model_validate({"device": "cpu", **settings}))
    assert (guard is not None) == is_guarded
