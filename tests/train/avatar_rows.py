"""Label rows of drawn portraits, drawn at random from the parts that each style has."""

import random

from oar_core.train import avatar_looks as looks

UNSEEN = "variant99"  # a part without a name
PERSONAS = {
    "hair": [*looks.PERSONAS_HAIR],
    "facialHair": ["", *looks.PERSONAS_FACIAL_HAIR],
    "eyes": ["open", *looks.PERSONAS_EYES, *looks.PERSONAS_GLASSES],
    "mouth": [*looks.PERSONAS_MOUTHS],
    "body": [*looks.PERSONAS_CLOTHES],
}
MICAH = {
    "hair": [*looks.MICAH_HAIR],
    "facialHair": ["", "beard", "scruff"],
    "eyes": ["eyes", "round", "smiling", "smilingShadow"],
    "mouth": [*looks.MICAH_MOUTHS],
    "glasses": ["", "round", "square"],
    "earrings": ["", "hoop", "stud"],
    "shirt": [*looks.MICAH_CLOTHES],
}
BIG_SMILE = {
    "hair": [*looks.BIG_SMILE_HAIR],
    "mouth": [*looks.BIG_SMILE_MOUTHS],
    "eyes": ["normal", *looks.BIG_SMILE_EYES],
    "accessories": ["", "mustache", *looks.BIG_SMILE_GLASSES, *looks.BIG_SMILE_ACCESSORIES],
}
TOON_HEAD = {
    "hair": [*looks.TOON_HEAD_HAIR],
    "rearHair": [*looks.TOON_HEAD_LENGTHS],
    "beard": ["", *looks.TOON_HEAD_BEARDS],
    "eyes": ["happy", "bow", "humble", "wink"],
    "eyebrows": ["neutral", "angry", "sad"],
    "mouth": ["sad", *looks.TOON_HEAD_MOUTHS],
    "clothes": [*looks.TOON_HEAD_CLOTHES],
}
ADVENTURER = {
    "hair": [*looks.ADVENTURER_HAIR],
    "eyes": [UNSEEN, *looks.ADVENTURER_EYES],
    "mouth": [UNSEEN, *looks.ADVENTURER_MOUTHS],
    "glasses": ["", "variant01", "variant02"],
    "features": ["", "mustache", *looks.ADVENTURER_MARKS],
    "earrings": ["", "variant01", "variant02"],
}
LORELEI = {
    "hair": [UNSEEN, *looks.LORELEI_HAIR],
    "eyes": [UNSEEN, *looks.LORELEI_EYES],
    "mouth": [UNSEEN, *looks.LORELEI_MOUTHS],
    "glasses": ["", "variant03", *looks.LORELEI_GLASSES],
    "beard": ["", "variant01"],
    "hairAccessories": ["", "flowers"],
    "freckles": ["", "variant01"],
}
PARTS = {
    "personas": PERSONAS,
    "micah": MICAH,
    "bigSmile": BIG_SMILE,
    "toonHead": TOON_HEAD,
    "adventurer": ADVENTURER,
    "lorelei": LORELEI,
}
COLOURS = {
    "skinColor": looks.SKINS,
    "baseColor": looks.SKINS,
    "hairColor": looks.HAIR_COLOURS,
    "clothingColor": looks.CLOTHES_COLOURS,
    "shirtColor": looks.CLOTHES_COLOURS,
    "clothesColor": looks.CLOTHES_COLOURS,
    "glassesColor": looks.HAIR_COLOURS,
    "earringColor": looks.HAIR_COLOURS,
}


def draw_row(rng: random.Random) -> dict[str, str]:
    style = rng.choice(sorted(PARTS))
    row = {"style": style, "background": rng.choice(sorted(looks.BACKGROUNDS))}
    row |= {column: rng.choice(parts) for column, parts in PARTS[style].items()}
    return row | {
        column: rng.choice([value for part in palette.values() for value in part])
        for column, palette in COLOURS.items()
    }
