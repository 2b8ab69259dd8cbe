"""Captions: many wordings of the same attributes, and never another attribute."""

import random

from hypothesis import given
from hypothesis import strategies as st

from oar_core.train.captions import ACTIONS, BOTTOMS, HAIR, SHOES, SKINS, TOPS, VIEWS, SpriteCaptions, title_or_caption

ROWS = st.fixed_dictionaries(
    {
        "body": st.integers(0, len(SKINS) - 1).map(str),
        "hair": st.integers(0, len(HAIR) - 1).map(str),
        "topwear": st.integers(0, len(TOPS) - 1).map(str),
        "bottomwear": st.integers(0, len(BOTTOMS) - 1).map(str),
        "shoes": st.integers(0, len(SHOES) - 1).map(str),
        "action": st.sampled_from(sorted(ACTIONS)),
        "direction": st.sampled_from(sorted(VIEWS)),
        "caption": st.just("the original"),
    }
)


@given(ROWS, st.integers(0, 2**32))
def test_a_wording_names_only_what_the_picture_shows(row: dict[str, str], seed: int) -> None:
    caption = SpriteCaptions(original_share=0.0)(row, random.Random(seed))
    for column, words in (("hair", HAIR), ("topwear", TOPS), ("bottomwear", BOTTOMS), ("shoes", SHOES)):
        own = set(words[int(row[column])])
        for index, others in enumerate(words):
            foreign = {word for word in others if not any(word in mine or mine in word for mine in own)}
            named = [word for word in foreign if f" {word}" in caption]
            assert not any(index != int(row[column]) and not _covered(word, caption, row) for word in named)


def _covered(word: str, caption: str, row: dict[str, str]) -> bool:
    """A foreign word may be part of a longer wording of another attribute ("grey armour" in "golden leg armour")."""
    wordings = [
        wording
        for column, words in (("hair", HAIR), ("topwear", TOPS), ("bottomwear", BOTTOMS), ("shoes", SHOES))
        for wording in words[int(row[column])]
    ]
    return any(word in wording and wording in caption for wording in wordings)


@given(ROWS, st.integers(0, 2**32))
def test_the_same_draw_gives_the_same_wording(row: dict[str, str], seed: int) -> None:
    source = SpriteCaptions()
    assert source(row, random.Random(seed)) == source(row, random.Random(seed))


def test_the_original_caption_keeps_its_share() -> None:
    row = dict.fromkeys(("body", "hair", "topwear", "bottomwear", "shoes"), "0")
    row |= {"action": "walk", "direction": "front", "caption": "the original"}
    rng = random.Random(0)
    share = sum(SpriteCaptions(original_share=0.35)(row, rng) == "the original" for _ in range(2000)) / 2000
    assert 0.31 < share < 0.39


def test_shop_pictures_are_named_by_title_or_caption() -> None:
    rng = random.Random(0)
    row = {"title": "Puma Men Red T-shirt", "caption": "a red t-shirt for men"}
    assert {title_or_caption(row, rng) for _ in range(50)} == set(row.values())
    assert title_or_caption({**row, "title": ""}, rng) == row["caption"]
