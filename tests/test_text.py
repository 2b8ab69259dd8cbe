"""The text tokenizer."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oar_core.errors import PromptError, PromptLengthError
from oar_core.text import START_ID, TextTokenizer

CAPTIONS = ["a person with red hair", "an orc with golden boots, walking", "a person with golden hair"] * 5


@pytest.fixture(scope="module")
def text() -> TextTokenizer:
    return TextTokenizer.train(CAPTIONS, 320)


def test_frequent_words_are_single_tokens(text: TextTokenizer) -> None:
    assert len(text.encode("a person with golden hair", max_length=10)) == 6


def test_case_and_outer_white_space_do_not_matter(text: TextTokenizer) -> None:
    assert text.encode("  A Person ", max_length=10) == text.encode("a person", max_length=10)


@given(st.text(min_size=1).filter(str.strip))
def test_any_text_has_ids_of_the_vocabulary(prompt: str) -> None:
    tokenizer = TextTokenizer.train(CAPTIONS, 320)
    ids = tokenizer.encode(prompt, max_length=10_000)
    assert ids[0] == START_ID
    assert all(0 <= token_id < tokenizer.vocab_size for token_id in ids)


def test_an_empty_prompt_is_refused(text: TextTokenizer) -> None:
    with pytest.raises(PromptError):
        text.encode(" \n", max_length=10)


def test_a_prompt_beyond_the_prefix_is_refused_with_its_length(text: TextTokenizer) -> None:
    with pytest.raises(PromptLengthError, match="has 6 tokens; this model reads 5"):
        text.encode("a person with golden hair hair", max_length=6)


def test_an_empty_caption_is_the_unconditional_prefix(text: TextTokenizer) -> None:
    assert text.encode_captions(["", "a person"], max_length=8)[0] == (START_ID,)


def test_a_saved_tokenizer_reads_alike(text: TextTokenizer, tmp_path: Path) -> None:
    text.save(tmp_path)
    loaded = TextTokenizer.load(tmp_path)
    assert loaded.encode(CAPTIONS[1], max_length=20) == text.encode(CAPTIONS[1], max_length=20)
