"""Contents of a drawn portrait, as label columns of its own, from the parts that it was composed of.

A part's name says little: `variant07`, `fonze`, a colour as `#6bd9e9`. The tables below name what each part looks like,
as seen in pictures of every part, and give parts that look alike one name. A part without a clear look has no name
(`UNNAMED`), and neither has one that something covers: eyes behind sunglasses, a mouth behind a mask.
"""

from collections.abc import Callable, Mapping
from functools import cache

Row = Mapping[str, str]
Look = dict[str, str]

PREFIX = "look_"  # of the columns, beside those of the parts
COLUMNS = (
    "skin",
    "hair",
    "hair_length",
    "hair_colour",
    "facial_hair",
    "facial_hair_colour",
    "eyes",
    "brows",
    "mouth",
    "glasses",
    "clothes",
    "clothes_colour",
    "accessory",
    "earrings",
    "marks",
)
UNNAMED = ""  # not to be told from the picture, or without words
NONE = "none"  # the portrait shows that there is none

Palette = dict[str, tuple[str, ...]]
SKINS: Palette = {
    "light": ("#f9c9b6", "#eeb4a4", "#e7a391", "#e5a07e", "#ffe4c0", "#f5d7b1", "#efcc9f", "#f1c3a5", "#f2d3b1"),
    "tan": ("#d78774", "#b16a5b", "#e2ba87", "#c99c62", "#c68e7a", "#b98e6a", "#ecad80"),
    "brown": ("#92594b", "#ac6651", "#a47539", "#8c5a2b", "#a36b4f", "#9e5622"),
    "dark": ("#623d36", "#77311d", "#643d19", "#5c3829", "#763900"),
}
HAIR_COLOURS: Palette = {
    "black": ("#000000", "#0e0e0e", "#220f00", "#2c1b18", "#362c47"),
    "dark brown": ("#3a1a00",),
    "brown": ("#6c4545", "#77311d", "#71472d", "#724133", "#562306", "#6a4e35"),
    "ash brown": ("#796a45",),
    "light brown": ("#ac6651", "#ac6511", "#b58143"),
    "auburn": ("#a55728",),
    "red": ("#e15c66", "#ab2a18"),
    "orange": ("#f29c65", "#f27d65", "#d56c0c", "#cb6820"),
    "blonde": ("#ffeba4", "#e2ba87", "#d6b370", "#e5d7a3"),
    "dark blonde": ("#b9a05f",),
    "golden": ("#f4d150", "#e9b729"),
    "silver": ("#dee1f5",),
    "gray": ("#afafaf",),
    "white": ("#ffffff",),
    "pink": ("#e16381", "#fc909f", "#dba3be"),
    "pale pink": ("#ffedef",),
    "peach": ("#f9c9b6",),
    "purple": ("#9287ff",),
    "dark purple": ("#592454",),
    "lavender": ("#e0ddff",),
    "blue": ("#605de4",),
    "sky blue": ("#6bd9e9", "#85c2c6"),
    "pale blue": ("#d2eff3",),
    "teal": ("#238d80",),
    "green": ("#3eac2c",),
}
CLOTHES_COLOURS: Palette = {
    "black": ("#000000", "#151613"),
    "gray": ("#545454",),
    "white": ("#ffffff", "#e8e9e6"),
    "brown": ("#77311d",),
    "light brown": ("#ac6651",),
    "red": ("#e24553", "#b11f1f"),
    "orange": ("#f97316",),
    "yellow": ("#f3b63a", "#f4d150", "#eab308"),
    "pale yellow": ("#ffeba4",),
    "green": ("#6dbb58", "#147f3c"),
    "turquoise": ("#54d7c7",),
    "sky blue": ("#6bd9e9",),
    "pale blue": ("#d2eff3",),
    "blue": ("#456dff",),
    "navy": ("#0b3286",),
    "purple": ("#7555ca", "#9287ff", "#731ac3"),
    "lavender": ("#e0ddff",),
    "pink": ("#f55d81", "#fc909f", "#ec4899"),
    "pale pink": ("#ffedef",),
    "peach": ("#f9c9b6",),
}
BACKGROUNDS = {
    "white": "#ffffff",
    "light blue": "#d1e8ff",
    "peach": "#ffe3cf",
    "light green": "#d9f2d0",
    "light yellow": "#fff3b0",
    "lavender": "#e6dcff",
}
ALIKE = 40.0  # distance of two colours, out of 255 a channel, that are hard to tell apart


def add_look(row: Row) -> dict[str, str]:
    """The row with a column for all that its portrait shows."""
    return {**row, **{PREFIX + column: value for column, value in draw_look(row).items()}}


def draw_look(row: Row) -> Look:
    """Every column's value, UNNAMED where the style has no such part. Raises KeyError for a style without a table."""
    return dict.fromkeys(COLUMNS, UNNAMED) | LOOKS[row["style"]](row)


@cache
def colour_name(value: str, palette: str) -> str:
    """The name of the nearest colour of the palette `skin`, `hair` or `clothes`."""
    named = {name: min(_distance(value, other) for other in others) for name, others in PALETTES[palette].items()}
    return min(named, key=named.__getitem__)


PALETTES: dict[str, Palette] = {"skin": SKINS, "hair": HAIR_COLOURS, "clothes": CLOTHES_COLOURS}


@cache
def _distance(value: str, other: str) -> float:
    pairs = zip(_channels(value), _channels(other), strict=True)
    return sum((a - b) ** 2 for a, b in pairs) ** 0.5


def _channels(value: str) -> tuple[int, int, int]:
    digits = value.lstrip("#")
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def _are_alike(value: str, other: str) -> bool:
    return _distance(value, other) < ALIKE


def _names(table: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The name of each part, of a table that lists the parts of each name."""
    return {part: name for name, parts in table.items() for part in parts}


def _variants(*numbers: int, prefix: str = "variant") -> tuple[str, ...]:
    return tuple(f"{prefix}{number:02}" for number in numbers)


# personas

PERSONAS_HAIR = {
    "bald": "bald",
    "balding": "balding",
    "beanie": "beanie",
    "bobBangs": "bob with bangs",
    "bobCut": "bob",
    "bunUndercut": "topknot",
    "buzzcut": "buzz cut",
    "cap": "cap",
    "curly": "afro",
    "curlyBun": "curly bun",
    "curlyHighTop": "high top",
    "extraLong": "very long",
    "fade": "fade",
    "long": "long",
    "mohawk": "mohawk",
    "pigtails": "pigtails",
    "shortCombover": "side part",
    "shortComboverChops": "sideburns",
    "sideShave": "half-shaved",
    "straightBun": "bun",
}
PERSONAS_COLOURLESS = {"bald", "buzzcut", "cap", "beanie"}  # whose hair does not show its colour
PERSONAS_FACIAL_HAIR = {
    "beardMustache": "full beard",
    "goatee": "goatee",
    "pyramid": "moustache",
    "walrus": "moustache",
    "shadow": "stubble",
    "soulPatch": "soul patch",
}
PERSONAS_MOUTHS = {
    "bigSmile": "grin",
    "frown": "frown",
    "lips": "red lips",
    "pacifier": "pacifier",
    "smile": "smile",
    "smirk": "smirk",
    "surprise": "surprised",
}
PERSONAS_EYES = {"happy": "smiling", "sleep": "closed", "wink": "winking"}
PERSONAS_GLASSES = {"glasses": "square", "sunglasses": "sunglasses"}
PERSONAS_CLOTHES = {"checkered": "checkered shirt", "rounded": "t-shirt", "squared": "t-shirt", "small": "wrap top"}


def _personas(row: Row) -> Look:
    has_colour, facial_hair = row["hair"] not in PERSONAS_COLOURLESS, row["facialHair"]
    colour = colour_name(row["hairColor"], "hair")
    is_beard_coloured = facial_hair in {"beardMustache", "goatee", "pyramid", "walrus"}
    return {
        "skin": colour_name(row["skinColor"], "skin"),
        "hair": PERSONAS_HAIR.get(row["hair"], UNNAMED),
        "hair_colour": colour if has_colour else UNNAMED,
        "facial_hair": _part(facial_hair, PERSONAS_FACIAL_HAIR),
        "facial_hair_colour": colour if is_beard_coloured and not has_colour else UNNAMED,
        "eyes": PERSONAS_EYES.get(row["eyes"], UNNAMED),
        # The full beard is drawn with a grin of its own, over any mouth.
        "mouth": UNNAMED if facial_hair == "beardMustache" else PERSONAS_MOUTHS.get(row["mouth"], UNNAMED),
        "glasses": PERSONAS_GLASSES.get(row["eyes"], NONE),
        "clothes": PERSONAS_CLOTHES.get(row["body"], UNNAMED),
        "clothes_colour": colour_name(row["clothingColor"], "clothes"),
        "accessory": "headband" if row["hair"] in {"curlyBun", "straightBun"} else NONE,
    }


# micah

MICAH_HAIR = {
    "dannyPhantom": "mullet",
    "dougFunny": "few hairs",
    "fonze": "quiff",
    "full": "long wavy",
    "mrClean": "bald",
    "mrT": "mohawk",
    "pixie": "bob",
    "turban": "turban",
}
MICAH_MOUTHS = {
    "frown": "frown",
    "sad": "frown",
    "laughing": "laugh",
    "nervous": "gritted teeth",
    "pucker": "puckered lips",
    "smile": "smile",
    "smirk": "smile",
    "surprised": "surprised",
}
MICAH_THROUGH_BEARD = {"laughing", "nervous", "surprised"}  # the mouths that the black beard does not swallow
MICAH_CLOTHES = {"collared": "collared shirt", "crew": "sweater", "open": "t-shirt"}


def _micah(row: Row) -> Look:
    hair, background = row["hair"], BACKGROUNDS.get(row["background"], "#ffffff")
    # A mohawk and single hairs have no outline: they vanish before a background of their colour.
    is_lost = hair in {"mrT", "dougFunny"} and _are_alike(row["hairColor"], background)
    has_beard = row["facialHair"] == "beard"
    return {
        "skin": colour_name(row["baseColor"], "skin"),
        "hair": UNNAMED if is_lost else MICAH_HAIR.get(hair, UNNAMED),
        "hair_colour": UNNAMED
        if is_lost or hair in {"mrClean", "dougFunny"}
        else colour_name(row["hairColor"], "hair"),
        "facial_hair": _part(row["facialHair"], {"beard": "full beard", "scruff": "stubble"}),
        "facial_hair_colour": "black" if has_beard else UNNAMED,
        "eyes": "smiling" if row["eyes"].startswith("smiling") else UNNAMED,
        "mouth": UNNAMED
        if has_beard and row["mouth"] not in MICAH_THROUGH_BEARD
        else MICAH_MOUTHS.get(row["mouth"], UNNAMED),
        "glasses": _micah_glasses(row),
        "clothes": MICAH_CLOTHES.get(row["shirt"], UNNAMED),
        "clothes_colour": colour_name(row["shirtColor"], "clothes"),
        "earrings": _micah_earrings(row, background),
    }


def _micah_glasses(row: Row) -> str:
    if not row["glasses"]:
        return NONE
    return UNNAMED if _are_alike(row["glassesColor"], row["baseColor"]) else row["glasses"]


def _micah_earrings(row: Row, background: str) -> str:
    if not row["earrings"]:
        return NONE
    behind = (background, row["baseColor"], *([row["hairColor"]] if row["hair"] == "full" else []))
    is_lost = row["hair"] == "pixie" or any(_are_alike(row["earringColor"], other) for other in behind)
    return "hoop" if row["earrings"] == "hoop" and not is_lost else UNNAMED


# bigSmile

BIG_SMILE_HAIR = {
    "bangs": "long with bangs",
    "bowlCutHair": "bowl cut",
    "braids": "braids",
    "bunHair": "bun",
    "curlyBob": "puffy bob",
    "curlyShortHair": "short curly",
    "froBun": "curly bun",
    "halfShavedHead": "half-shaved",
    "mohawk": "mohawk",
    "shavedHead": "buzz cut",
    "shortHair": "short",
    "straightHair": "long straight",
    "wavyBob": "wavy",
}
BIG_SMILE_MOUTHS = {
    "awkwardSmile": "grin",
    "teethSmile": "grin",
    "braces": "braces",
    "gapSmile": "laugh",
    "openedSmile": "laugh",
    "kawaii": "smile",
    "openSad": "upset",
    "unimpressed": "straight face",
}
BIG_SMILE_EYES = {"angry": "angry", "sad": "sad", "sleepy": "sleepy", "starstruck": "starry", "winking": "winking"}
BIG_SMILE_GLASSES = {"glasses": "round", "sunglasses": "sunglasses"}
BIG_SMILE_ACCESSORIES = {
    "catEars": "cat ears",
    "clownNose": "clown nose",
    "faceMask": "face mask",
    "sailormoonCrown": "tiara",
    "sleepMask": "sleep mask",
}


def _big_smile(row: Row) -> Look:
    wears = row["accessories"]
    # Cropped hair of the skin's colour looks like no hair.
    is_lost = row["hair"] == "shavedHead" and _are_alike(row["hairColor"], row["skinColor"])
    hides_mouth = wears == "faceMask" or (wears == "mustache" and row["mouth"] in {"kawaii", "unimpressed"})
    return {
        "skin": colour_name(row["skinColor"], "skin"),
        "hair": UNNAMED if is_lost else BIG_SMILE_HAIR.get(row["hair"], UNNAMED),
        "hair_colour": UNNAMED if is_lost else colour_name(row["hairColor"], "hair"),
        "facial_hair": "moustache" if wears == "mustache" else UNNAMED if wears == "faceMask" else NONE,
        "eyes": UNNAMED if wears in {"sleepMask", "sunglasses"} else BIG_SMILE_EYES.get(row["eyes"], UNNAMED),
        "mouth": UNNAMED if hides_mouth else BIG_SMILE_MOUTHS.get(row["mouth"], UNNAMED),
        "glasses": BIG_SMILE_GLASSES.get(wears, NONE),
        "accessory": BIG_SMILE_ACCESSORIES.get(wears, NONE),
    }


# toonHead

TOON_HEAD_HAIR = {"bun": "bun", "sideComed": "side part", "spiky": "spiky", "undercut": "undercut"}
TOON_HEAD_LENGTHS = {
    "": "short",
    "neckHigh": "chin-length",
    "shoulderHigh": "long",
    "longStraight": "long",
    "longWavy": "long",
}
TOON_HEAD_BEARDS = {
    "chin": "soul patch",
    "chinMoustache": "moustache and chin beard",
    "fullBeard": "full beard",
    "longBeard": "full beard",
    "moustacheTwirl": "twirled moustache",
}
TOON_HEAD_MOUTHS = {"agape": "surprised", "angry": "frown", "laugh": "laugh", "smile": "smirk"}
TOON_HEAD_CLOTHES = {
    "dress": "tank top",
    "openJacket": "jacket",
    "shirt": "sweater over a shirt",
    "tShirt": "t-shirt",
    "turtleNeck": "turtleneck",
}
TOON_HEAD_DARKEST = "#5c3829"  # on which mouths and eyebrows are hard to see


def _toon_head(row: Row) -> Look:
    is_darkest, beard = row["skinColor"] == TOON_HEAD_DARKEST, row["beard"]
    is_beard_lost = bool(beard) and _are_alike(row["hairColor"], row["skinColor"])
    is_mouth_seen = not is_darkest and beard in {"", "chin"}
    return {
        "skin": colour_name(row["skinColor"], "skin"),
        "hair": TOON_HEAD_HAIR.get(row["hair"], UNNAMED),
        "hair_length": TOON_HEAD_LENGTHS.get(row["rearHair"], UNNAMED) if row["hair"] != "bun" else UNNAMED,
        "hair_colour": colour_name(row["hairColor"], "hair"),
        "facial_hair": UNNAMED if is_beard_lost else _part(beard, TOON_HEAD_BEARDS),
        "eyes": {"bow": "smiling", "humble": "closed", "wink": "winking"}.get(row["eyes"], UNNAMED),
        "brows": UNNAMED if is_darkest else {"angry": "angry", "sad": "worried"}.get(row["eyebrows"], UNNAMED),
        "mouth": TOON_HEAD_MOUTHS.get(row["mouth"], UNNAMED) if is_mouth_seen else UNNAMED,
        "clothes": TOON_HEAD_CLOTHES.get(row["clothes"], UNNAMED),
        "clothes_colour": colour_name(row["clothesColor"], "clothes"),
    }


# adventurer

ADVENTURER_HAIR = _names(
    {
        "bob": _variants(1, prefix="long"),
        "short": (*_variants(2, 21, prefix="long"), *_variants(1, 8, 9, 10, 13, 14, prefix="short")),
        "short with bangs": _variants(3, prefix="long") + _variants(2, 6, prefix="short"),
        "long": _variants(4, 5, 9, prefix="long"),
        "long wavy": _variants(6, 17, 18, prefix="long"),
        "long with bangs": _variants(7, 8, prefix="long"),
        "bun": (*_variants(10, 11, 12, prefix="long"), *_variants(5, prefix="short")),
        "space buns": _variants(13, 23, prefix="long"),
        "low pigtails": _variants(14, prefix="long"),
        "pigtails": _variants(15, prefix="long"),
        "braid": _variants(16, prefix="long"),
        "ponytail": _variants(19, prefix="long"),
        "over one eye": _variants(20, 25, prefix="long"),
        "wild curls": _variants(22, prefix="long"),
        "wavy": _variants(24, prefix="long"),
        "over the eyes": _variants(26, prefix="long"),
        "short curly": _variants(3, 17, prefix="short"),
        "buzz cut": _variants(4, prefix="short"),
        "wavy parted": _variants(7, prefix="short"),
        "quiff": _variants(11, prefix="short"),
        "tuft": _variants(12, prefix="short"),
        "spiky mohawk": _variants(15, prefix="short"),
        "spiky": _variants(16, prefix="short"),
        "high top": _variants(18, prefix="short"),
        "bald": _variants(19, prefix="short"),
    }
)
ADVENTURER_MOUTHS = _names(
    {
        "smile": _variants(1, 2, 29),
        "grin": _variants(5, 22, 23),
        "laugh": _variants(25, 26, 27, 28, 30),
        "red lips": _variants(6, 8),
        "straight face": _variants(9),
        "gritted teeth": _variants(11),
        "tongue out": _variants(12, 16),
        "drooling": _variants(13),
        "upset": _variants(14),
        "shouting": _variants(15),
        "puckered lips": _variants(17),
        "surprised": _variants(18),
    }
)
ADVENTURER_EYES = _names(
    {
        "sleepy": _variants(4, 16, 17, 18),
        "closed": _variants(19, 20),
        "winking": _variants(21, 22),
        "shiny": _variants(23),
    }
)
ADVENTURER_ONE_EYED = {"long20", "long25", "long26", "short06"}  # hair over an eye
ADVENTURER_EARLESS = {"long01", "long04", "long05", "long06", "long20", "long22", "long24", "long26"}
ADVENTURER_FLOWERS = {"long03": "flower crown", "long08": "flower crown", "long18": "flower"}
ADVENTURER_MARKS = {"freckles": "freckles", "birthmark": "mole", "blush": "blush"}


def _adventurer(row: Row) -> Look:
    hair, feature, glasses = row["hair"], row["features"], row["glasses"]
    are_eyes_covered = glasses == "variant01" or hair in ADVENTURER_ONE_EYED
    return {
        "skin": colour_name(row["skinColor"], "skin"),
        "hair": ADVENTURER_HAIR.get(hair, UNNAMED),
        "hair_colour": UNNAMED if hair == "short19" else colour_name(row["hairColor"], "hair"),
        "facial_hair": "moustache" if feature == "mustache" else NONE,
        "eyes": UNNAMED if are_eyes_covered else ADVENTURER_EYES.get(row["eyes"], UNNAMED),
        "mouth": ADVENTURER_MOUTHS.get(row["mouth"], UNNAMED),
        "glasses": NONE if not glasses else "sunglasses" if glasses == "variant01" else "glasses",
        "accessory": ADVENTURER_FLOWERS.get(hair, NONE),
        "earrings": _adventurer_earrings(row),
        "marks": ADVENTURER_MARKS.get(feature, NONE),
    }


def _adventurer_earrings(row: Row) -> str:
    """A pearl is seen; the other earrings are a few dark pixels."""
    if not row["earrings"]:
        return NONE
    return "pearl" if row["earrings"] == "variant02" and row["hair"] not in ADVENTURER_EARLESS else UNNAMED


# lorelei

LORELEI_HAIR = _names(
    {
        "short": _variants(1, 2, 3, 4, 6, 7, 9, 11, 12, 43, 47),
        "short curly": _variants(5, 22, 39),
        "quiff": _variants(8),
        "bob": _variants(10, 13, 17, 19, 23),
        "bun": _variants(14, 38, 45, 46),
        "long": _variants(15, 16, 21, 40),
        "wavy": _variants(18, 32, 37),
        "mullet": _variants(20, 30),
        "wild curls": _variants(24),
        "balding": _variants(25),
        "space buns": _variants(26),
        "spiky mohawk": _variants(27),
        "buzz cut": _variants(28),
        "ponytail": _variants(29, 31, 33, 36, 42),
        "tuft": _variants(34),
        "long wavy": _variants(35),
        "cornrows": _variants(44),
    }
)
LORELEI_MOUTHS = _names(
    {
        "smile": _variants(1, 2, 3, 4, 5, 6, 14, 15, prefix="happy"),
        "grin": _variants(7, 16, prefix="happy"),
        "tongue out": _variants(9, prefix="happy") + _variants(8, prefix="sad"),
        "surprised": _variants(1, prefix="sad"),
        "frown": _variants(4, 5, prefix="sad"),
        "gritted teeth": _variants(6, 7, prefix="sad"),
    }
)
LORELEI_EYES = _names({"closed": _variants(1, 15, 19, 22), "winking": _variants(18)})
LORELEI_ONE_EYED = set(_variants(40, 41, 45))
LORELEI_GLASSES = {"variant01": "round", "variant02": "sunglasses"}


def _lorelei(row: Row) -> Look:
    glasses = row["glasses"]
    are_eyes_covered = glasses == "variant02" or row["hair"] in LORELEI_ONE_EYED
    return {
        "hair": LORELEI_HAIR.get(row["hair"], UNNAMED),
        "facial_hair": "full beard" if row["beard"] else NONE,
        "eyes": UNNAMED if are_eyes_covered else LORELEI_EYES.get(row["eyes"], UNNAMED),
        "mouth": UNNAMED if row["beard"] else LORELEI_MOUTHS.get(row["mouth"], UNNAMED),
        "glasses": LORELEI_GLASSES.get(glasses, "glasses") if glasses else NONE,
        "accessory": "flowers" if row["hairAccessories"] else NONE,
        "marks": "freckles" if row["freckles"] and not row["beard"] else UNNAMED if row["beard"] else NONE,
    }


LOOKS: dict[str, Callable[[Row], Look]] = {
    "personas": _personas,
    "micah": _micah,
    "bigSmile": _big_smile,
    "toonHead": _toon_head,
    "adventurer": _adventurer,
    "lorelei": _lorelei,
}


def _part(part: str, table: Mapping[str, str]) -> str:
    return table.get(part, UNNAMED) if part else NONE
