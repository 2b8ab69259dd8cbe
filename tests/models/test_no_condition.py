"""Models without a condition: one prefix, and nothing to say."""

import json
from pathlib import Path

import pytest
import torch

from oar_core.errors import PromptError, WeightsError
from oar_core.models.load import CONDITIONERS, conditioner_key, load_model
from oar_core.models.no_condition import NO_CONDITION, NoCondition
from tests.models.folders import NUM_CLASSES, write_unconditional_model


def test_a_folder_keeps_the_prefix(tmp_path: Path) -> None:
    NoCondition((3, 5)).save(tmp_path)
    loaded = NoCondition.load(tmp_path)
    assert (loaded.unconditional_ids, loaded.num_special_tokens, loaded.kind) == ((3, 5), 2, "none")
    assert CONDITIONERS[conditioner_key(loaded)] is NoCondition


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"unconditional_ids": ["a"]})])
def test_a_file_that_says_no_prefix_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / NO_CONDITION).write_text(text)
    with pytest.raises(WeightsError, match=NO_CONDITION):
        NoCondition.load(tmp_path)


def test_a_prompt_is_refused_and_captions_say_nothing(tmp_path: Path) -> None:
    write_unconditional_model(tmp_path / "model")
    model = load_model(tmp_path / "model", "cpu", torch.float32)
    assert model.encode_prompt("") == model.unconditional_ids == (NUM_CLASSES,)
    assert model.max_prompt_tokens == 0
    with pytest.raises(PromptError, match="without a prompt"):
        model.encode_prompt("a hen")
    assert model.conditioner.encode_captions(["a hen", ""], max_length=1) == [(NUM_CLASSES,)] * 2
