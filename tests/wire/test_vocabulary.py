"""Words that a model has never seen."""

from pathlib import Path

from oar_core.text import WORDS, TextTokenizer
from oar_wire.vocabulary import MOST_WARNINGS, Vocabulary, words_of

CAPTIONS = ["a Red circle", "men's blue-green catwalk shoes, 2 pairs"]


def test_words_are_runs_of_letters_in_one_case_and_form() -> None:
    assert words_of("A \uff32ed-ish CAT's 3 hats_x caf\u00e9") == ["red", "ish", "cat", "hats", "caf\u00e9"]


def test_only_words_of_captions_are_known_however_they_are_split_into_tokens() -> None:
    text = TextTokenizer.train(CAPTIONS, vocab_size=270)  # too few tokens for whole words
    assert text.vocabulary is not None
    assert text.vocabulary.unknown("a red cat's catwalk, green shoes of a dog; a CAT") == ("cat", "of", "dog")


def test_each_word_is_told_once_and_no_more_than_some() -> None:
    vocabulary = Vocabulary(["red"])
    assert vocabulary.warnings(["red cat", "a cat"]) == ("'cat' is not in this model's vocabulary",)
    assert vocabulary.warnings(["red"]) == ()
    many = " ".join("x" * length for length in range(2, 200))
    assert len(vocabulary.warnings([many])) == MOST_WARNINGS


def test_they_are_saved_beside_the_tokenizer(tmp_path: Path) -> None:
    TextTokenizer.train(CAPTIONS, 280).save(tmp_path)
    loaded = TextTokenizer.load(tmp_path).vocabulary
    assert loaded is not None
    assert loaded.words == {"red", "circle", "men", "blue", "green", "catwalk", "shoes", "pairs"}


def test_a_folder_without_them_knows_no_vocabulary_and_saving_it_leaves_none(tmp_path: Path) -> None:
    text = TextTokenizer.train(CAPTIONS, 280)
    text.save(tmp_path)
    (tmp_path / WORDS).unlink()
    bare = TextTokenizer.load(tmp_path)
    assert bare.vocabulary is None
    text.save(tmp_path)
    bare.save(tmp_path)
    assert not (tmp_path / WORDS).exists()
