"""Captions of drawn portraits: all that a portrait shows in many wordings, and nothing else."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from oar_core.train import avatar_captions as captions
from oar_core.train.attributes import ATTRIBUTE_SETS, AVATAR_LOOKS
from oar_core.train.avatar_captions import AvatarCaptions, wordings
from oar_core.train.avatar_looks import COLUMNS, NONE, PALETTES, UNNAMED, add_look, colour_name, draw_look
from tests.train.avatar_rows import draw_row

ROWS = [draw_row(random.Random(seed)) for seed in range(1600)]
_SHADES = {
    word
    for table in (captions.HAIR_COLOURS, captions.CLOTHES_COLOURS)
    for exact, loose in table.values()
    for word in (*exact, *loose)
} | {word for words in captions.HAIR_LENGTHS.values() for word in words}
SHADE = "(?:(?:" + "|".join(sorted(map(re.escape, _SHADES), key=len, reverse=True)) + ") )*"


def pattern(wording: str) -> re.Pattern[str]:
    """The wording with any colour, and without its article, as lists have it."""
    bare = re.sub(r"^an? ", "", wording)
    return re.compile(r"(?<![\w-])" + re.escape(bare).replace(re.escape("{colour} "), SHADE) + r"(?![\w-])")


PATTERNS = {
    (column, value): [pattern(wording) for wording in (*words.before, *words.having, *words.loose)]
    for column, table in captions.TABLES.items()
    for value, words in table.items()
} | {("clothes", value): [pattern(wording) for wording in wordings] for value, wordings in captions.CLOTHES.items()}
AROUND = [
    pattern(phrase)
    for table in (captions.STYLES, captions.BACKGROUNDS)
    for phrases in table.values()
    for phrase in phrases
] + [re.compile(r"(?<![\w-])" + re.escape(shade) + r"(?![\w-])") for shade in sorted(_SHADES)]


def spans(patterns: list[re.Pattern[str]], caption: str) -> Iterator[tuple[int, int]]:
    return (match.span() for one in patterns for match in one.finditer(caption))


def shown(row: dict[str, str]) -> dict[str, str]:
    return {column: value for column, value in draw_look(row).items() if value != UNNAMED}


@pytest.mark.parametrize("source", [AvatarCaptions(), AvatarCaptions.complete()], ids=["random", "complete"])
def test_a_caption_names_only_what_the_portrait_shows(source: AvatarCaptions) -> None:
    rng = random.Random(0)
    for row in ROWS:
        caption, values = source(row, rng), shown(row)
        own = [*spans(AROUND, caption)]
        own += [
            span for key, patterns in PATTERNS.items() if key in values.items() for span in spans(patterns, caption)
        ]
        for key, patterns in PATTERNS.items():
            if key not in values.items():
                for start, end in spans(patterns, caption):
                    covered = any(first <= start and end <= last for first, last in own)
                    assert covered, f"{caption!r} names {key} as {caption[start:end]!r}; shown is {values}"


def test_a_complete_caption_names_every_value_and_all_values_have_their_turn() -> None:
    rng, source = random.Random(0), AvatarCaptions.complete()
    seen: set[tuple[str, str]] = set()
    for row in ROWS:
        caption = source(row, rng)
        for column, value in shown(row).items():
            if value == NONE or column not in {*captions.TABLES, "clothes"}:
                continue
            assert any(True for _ in spans(PATTERNS[column, value], caption)), f"{caption!r} lacks {column} {value}"
            seen.add((column, value))
    assert {key for key in PATTERNS if key[1] != NONE} == seen


def test_colours_lengths_styles_and_backgrounds_are_named() -> None:
    rng, source = random.Random(0), AvatarCaptions.complete()
    for row in ROWS:
        caption, values = source(row, rng), shown(row)
        assert any(style in caption for style in captions.STYLES[row["style"]])
        assert any(
            f"{colour} background" in caption or f"on {colour}" in caption
            for colour in captions.BACKGROUNDS[row["background"]]
        )
        for column, table in (("hair_colour", captions.HAIR_COLOURS), ("clothes_colour", captions.CLOTHES_COLOURS)):
            if column in values:
                assert any(word in caption for word in table[values[column]][0]), f"{caption!r} lacks {values[column]}"
        if "hair_length" in values:
            assert any(word in caption for word in captions.HAIR_LENGTHS[values["hair_length"]]), caption


def test_each_wording_is_used() -> None:
    rng, source = random.Random(0), AvatarCaptions(keep_none=1.0)
    text = "\n".join(source(row, rng) for row in ROWS * 3)
    unused = [
        wording
        for key, table in captions.TABLES.items()
        for words in table.values()
        for wording in wordings(words)
        if key != "hair" and "moustache" not in wording and re.sub(r"^an? ", "", wording) not in text
    ]
    assert [wording for wording in unused if not any(part in wording for part in ("beard", "goatee", "mustache"))] == []


def test_attributes_are_left_out_now_and_then() -> None:
    row = next(row for row in ROWS if {"hair", "clothes", "mouth", "skin"} <= shown(row).keys())
    rng, source = random.Random(0), AvatarCaptions()
    drawn = [source(row, rng) for _ in range(400)]
    assert len(set(drawn)) > 300
    named = sum(any(style in caption for style in captions.STYLES[row["style"]]) for caption in drawn) / 400
    assert 0.5 < named < 0.7
    assert max(map(len, drawn)) > 2 * min(map(len, drawn))


def test_the_same_draw_gives_the_same_caption() -> None:
    source = AvatarCaptions()
    for row in ROWS[:200]:
        assert source(row, random.Random(3)) == source(row, random.Random(3))


def test_captions_read_well() -> None:
    rng, source = random.Random(0), AvatarCaptions()
    for row in ROWS[:2000]:
        caption = source(row, rng)
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|\{|\}|  | ,|,,|\b(\w+) \1\b|None|variant|#", caption), caption
        assert caption == caption.strip(" ,")


def test_words_of_a_style_are_its_own() -> None:
    for style, phrases in captions.STYLES.items():
        others = [phrase for other, found in captions.STYLES.items() if other != style for phrase in found]
        assert [phrase for phrase in phrases if any(phrase in other for other in others)] == []


def test_words_that_are_a_values_own_are_no_others() -> None:
    """A complete caption tells each value from the others of its column."""
    for column, table in captions.TABLES.items():
        own = {value: {*words.before, *words.having} for value, words in table.items()}
        for value, words in own.items():
            assert not any(words & others for other, others in own.items() if other != value), (column, value)


def test_gender_is_a_matter_of_what_is_drawn() -> None:
    rng, source = random.Random(0), AvatarCaptions()
    for row in ROWS:
        if draw_look(row)["facial_hair"] not in {NONE, UNNAMED}:
            assert not re.search(r"\b(woman|lady|girl)\b", source(row, rng))


def test_every_colour_has_a_name_and_the_nearest_one_for_others() -> None:
    for name, palette in PALETTES.items():
        for colour, values in palette.items():
            assert {colour_name(value, name) for value in values} == {colour}
    assert colour_name("#010203", "hair") == "black"
    assert set(PALETTES["hair"]) == set(captions.HAIR_COLOURS)
    assert set(PALETTES["clothes"]) == set(captions.CLOTHES_COLOURS)
    assert set(PALETTES["skin"]) == set(captions.SKIN)


def test_the_documents_list_what_a_prompt_decides_in_each_style() -> None:
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    for style in captions.STYLES:
        (listed,) = re.findall(rf"^\| {style} \| ([\w, ]+) \|", text, re.M)
        decided = {column for row in ROWS if row["style"] == style for column in shown(row)} - {"facial_hair_colour"}
        assert set(listed.split(", ")) == decided


def test_what_is_covered_is_not_named() -> None:
    row = next(row for row in ROWS if row["style"] == "bigSmile") | {"mouth": "braces", "eyes": "angry"}
    assert draw_look(row | {"accessories": ""})["mouth"] == "braces"
    assert draw_look(row | {"accessories": "faceMask"})["mouth"] == UNNAMED
    assert draw_look(row | {"accessories": "sunglasses"})["eyes"] == UNNAMED
    assert draw_look(row | {"accessories": "glasses"})["eyes"] == "angry"


def test_a_white_mohawk_before_white_is_not_seen() -> None:
    row = next(row for row in ROWS if row["style"] == "micah") | {"hair": "mrT", "hairColor": "#ffffff"}
    assert draw_look(row | {"background": "lavender"})["hair"] == "mohawk"
    assert draw_look(row | {"background": "white"})["hair"] == UNNAMED


def test_cropped_hair_of_the_skins_colour_is_not_seen() -> None:
    row = next(row for row in ROWS if row["style"] == "bigSmile") | {"hair": "shavedHead", "hairColor": "#e2ba87"}
    assert draw_look(row | {"skinColor": "#643d19"})["hair"] == "buzz cut"
    assert draw_look(row | {"skinColor": "#e2ba87"})["hair"] == UNNAMED


def test_the_evaluator_reads_columns_that_are_added() -> None:
    assert set(AVATAR_LOOKS) == set(COLUMNS) - {"facial_hair_colour"}
    assert all(attribute.column in add_look(ROWS[0]) for attribute in ATTRIBUTE_SETS["avatars"])
