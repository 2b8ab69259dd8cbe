"""What a worker makes of its settings of number format and threads."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from oar_core.engine.calibration import Calibration
from oar_core.engine.decoder_calibration import DecoderCalibration
from oar_core.nn.packed import NEVER, can_pack
from oar_core.nn.rounded_conv import has_bf16
from server.settings import Settings
from server.worker import models
from server.worker.models import LoadedModel, load_models

NUM_MEASURED = 1 + has_bf16(torch.device("cpu"))  # the network, and the decoder in bf16


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
    assert model.fingerprint.dtype.removesuffix(", decoded in bfloat16") in told
    assert len(list((tmp_path / "calibration").iterdir())) == NUM_MEASURED


def test_a_large_network_is_measured_unless_asked_otherwise(weights_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "LARGE_NETWORK", 1 << 10)
    loaded(weights_dir, tmp_path / "not", calibrate=False)
    assert not (tmp_path / "not" / "calibration").exists()
    loaded(weights_dir, tmp_path)
    assert len(list((tmp_path / "calibration").iterdir())) == NUM_MEASURED


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


def test_workers_that_chose_differently_are_seen_to_differ(weights_dir, tmp_path, monkeypatch):
    """Two machines, each with what it measured."""
    told = set()
    for dtype, least, padded, decoder in (
        ("float32", NEVER, 1, "float32"),
        ("float32", 2, 1, "float32"),
        ("float32", 2, 5, "float32"),
        ("bfloat16", 2, 5, "float32"),
        ("float32", NEVER, 1, "bfloat16"),
    ):
        measured = Calibration(dtype, least, padded, 1.0, 1.0)
        monkeypatch.setattr(Calibration, "stored", lambda *_, measured=measured: measured)
        decoding = DecoderCalibration(decoder, 2.0, 0.5)
        monkeypatch.setattr(DecoderCalibration, "stored", lambda *_, decoding=decoding: decoding)
        told.add(loaded(weights_dir, tmp_path, dtype="fastest").fingerprint.model_dump_json())
    bf16, packs = has_bf16(torch.device("cpu")), can_pack(torch.nn.Linear(1, 1))
    assert len(told) == 1 + 2 * packs + 1 + bf16


@pytest.mark.parametrize("settings", [{"threads": 2}, {"compile": True}])
def test_a_worker_that_computes_otherwise_is_seen_to_differ(weights_dir, tmp_path, settings, monkeypatch):
    monkeypatch.setattr("oar_core.engine.model_runner.CompiledDraw", lambda *_: object())
    plain = loaded(weights_dir, tmp_path, threads=1).fingerprint
    monkeypatch.setattr(LoadedModel, "warm_up", lambda _: None)
    other = loaded(weights_dir, tmp_path, **{"threads": 1, **settings}).fingerprint
    assert other.kernels != plain.kernels
    assert "," not in plain.kernels + other.kernels  # which parts the pairs of a PNG's text


def test_the_deterministic_mode_decodes_in_fp32(weights_dir, tmp_path):
    model = loaded(weights_dir, tmp_path, deterministic=True, calibrate=True)
    assert model.pipeline.decode_dtype is torch.float32
    assert not (tmp_path / "calibration").exists()
