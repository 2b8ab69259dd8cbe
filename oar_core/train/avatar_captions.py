"""Captions of drawn portraits as people type them, from what `avatar_looks` says that a portrait shows.

"a smiling woman with curly red hair and glasses, green shirt, light blue background": a sentence or a list, with
attributes in many wordings, in any order, some left out. Only what is to be seen is named.
"""

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from oar_core.train.avatar_looks import NONE, UNNAMED, Look, draw_look

Row = Mapping[str, str]
COLOUR = "{colour} "  # in a wording: the colour's place, empty where it is not mentioned


@dataclass(frozen=True)
class Words:
    """The wordings of one value: before the noun ("a bald man"), behind "with" ("a man with a bald head"), and such
    behind "with" as another value shares ("curly hair" of an afro), by which alone a picture is not told."""

    before: tuple[str, ...] = ()
    having: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()


def _having(*having: str, loose: tuple[str, ...] = ()) -> Words:
    return Words((), having, loose)


SKIN = {
    "light": Words(("light-skinned", "fair-skinned", "pale"), ("light skin", "fair skin", "pale skin")),
    "tan": Words(("tan-skinned", "tanned"), ("tan skin", "tanned skin")),
    "brown": Words(("brown-skinned",), ("brown skin", "medium brown skin")),
    "dark": Words(("dark-skinned",), ("dark skin", "dark brown skin")),
}
HAIR = {
    "afro": _having("a {colour} afro", "a big {colour} afro", loose=("curly {colour} hair", "big curly {colour} hair")),
    "bald": Words(("bald",), ("a bald head", "no hair", "a shaved head")),
    "balding": Words(("balding",), ("receding {colour} hair", "thinning {colour} hair", "a bald top")),
    "beanie": _having("a red beanie", "a red knit cap", loose=("a beanie",)),
    "bob": _having("a {colour} bob", "{colour} hair in a bob", "a {colour} bob haircut"),
    "bob with bangs": _having("a {colour} bob with side bangs", loose=("a {colour} bob", "{colour} hair with bangs")),
    "bowl cut": _having("a {colour} bowl cut", "{colour} bowl cut hair", loose=("short straight {colour} hair",)),
    "braid": _having("a long {colour} braid", "{colour} hair in a braid", "a {colour} braid"),
    "braids": _having("{colour} braids", "long {colour} braids", "{colour} box braids", "braided {colour} hair"),
    "bun": _having("a {colour} bun", "{colour} hair in a bun", "a {colour} hair bun", loose=("{colour} hair tied up",)),
    "buzz cut": _having("a {colour} buzz cut", "buzzed {colour} hair", loose=("very short {colour} hair",)),
    "cap": _having("an orange cap", "an orange baseball cap", loose=("a cap",)),
    "cornrows": _having("{colour} cornrows", loose=("braided {colour} hair",)),
    "curly bun": _having("a curly {colour} bun", "curly {colour} hair in a bun", loose=("a {colour} bun",)),
    "fade": _having("a {colour} fade haircut", "{colour} hair with faded sides", loose=("short {colour} hair",)),
    "few hairs": _having("a few strands of hair", "only a few hairs", "almost no hair"),
    "half-shaved": _having("half-shaved {colour} hair", "side-shaved {colour} hair", "a {colour} side shave"),
    "high top": _having("a {colour} high top", "a curly {colour} high top", loose=("curly {colour} hair",)),
    "long": _having("long {colour} hair", "{colour} hair worn long", loose=("long straight {colour} hair",)),
    "long straight": _having(
        "straight shoulder-length {colour} hair", loose=("straight {colour} hair", "long {colour} hair")
    ),
    "long wavy": _having("long wavy {colour} hair", "long flowing {colour} hair", loose=("long {colour} hair",)),
    "long with bangs": _having(
        "long {colour} hair with bangs", "straight {colour} hair and bangs", loose=("long {colour} hair",)
    ),
    "low pigtails": _having("low {colour} pigtails", "two low {colour} ponytails", loose=("{colour} pigtails",)),
    "mohawk": _having("a {colour} mohawk", "{colour} mohawk hair"),
    "mullet": _having("a {colour} mullet", "a {colour} mullet haircut", loose=("{colour} hair",)),
    "over one eye": _having(
        "{colour} hair over one eye", "{colour} hair covering one eye", loose=("side-swept {colour} hair",)
    ),
    "over the eyes": _having("{colour} hair over the eyes", "long {colour} bangs", loose=("a {colour} bob",)),
    "pigtails": _having("{colour} pigtails", "{colour} hair in pigtails", "two {colour} pigtails"),
    "ponytail": _having("a {colour} ponytail", "{colour} hair in a ponytail"),
    "puffy bob": _having("a puffy {colour} bob", "voluminous {colour} hair", loose=("a {colour} bob",)),
    "quiff": _having("a {colour} quiff", "a {colour} pompadour", loose=("short {colour} hair",)),
    "short": _having("short {colour} hair", "{colour} hair cut short"),
    "short curly": _having("short curly {colour} hair", "short {colour} curls", loose=("curly {colour} hair",)),
    "short with bangs": _having("short {colour} hair with bangs", loose=("short {colour} hair", "{colour} bangs")),
    "side part": _having("side-parted {colour} hair", "{colour} hair with a side part", loose=("short {colour} hair",)),
    "sideburns": _having("{colour} hair and sideburns", "{colour} hair with sideburns", loose=("short {colour} hair",)),
    "space buns": _having("{colour} space buns", "two {colour} buns", "{colour} hair in two buns"),
    "spiky": _having("spiky {colour} hair", "messy spiky {colour} hair", "{colour} spikes"),
    "spiky mohawk": _having("a spiky {colour} mohawk", loose=("a {colour} mohawk", "spiky {colour} hair")),
    "topknot": _having("a {colour} topknot", "a {colour} man bun", loose=("a small {colour} bun",)),
    "tuft": _having("a {colour} tuft of hair", "a single tuft of {colour} hair", loose=("a tiny {colour} mohawk",)),
    "turban": _having("a {colour} turban", "a {colour} head wrap"),
    "undercut": _having("a {colour} undercut", "{colour} undercut hair", loose=("short-sided {colour} hair",)),
    "very long": _having("very long {colour} hair", "extra long {colour} hair", loose=("long {colour} hair",)),
    "wavy": _having("wavy {colour} hair", "{colour} wavy hair", "a wavy {colour} bob"),
    "wavy parted": _having("wavy parted {colour} hair", loose=("wavy {colour} hair", "parted {colour} hair")),
    "wild curls": _having("wild curly {colour} hair", "wild {colour} curls", loose=("curly {colour} hair",)),
}
HAIR_LENGTHS = {"short": ("short",), "chin-length": ("chin-length", "neck-length"), "long": ("long", "shoulder-length")}
# Exact wordings of a colour, then those that it shares with another one.
HAIR_COLOURS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "black": (("black",), ("dark",)),
    "dark brown": (("dark brown",), ("dark", "brown")),
    "brown": (("brown",), ()),
    "ash brown": (("ash brown", "olive brown"), ("brown",)),
    "light brown": (("light brown",), ("brown",)),
    "auburn": (("auburn", "reddish brown"), ("ginger",)),
    "red": (("red",), ()),
    "orange": (("orange", "ginger"), ("red",)),
    "blonde": (("blonde", "blond"), ("light blonde",)),
    "dark blonde": (("dark blonde",), ("blonde", "blond")),
    "golden": (("golden", "yellow"), ("blonde", "golden blonde")),
    "silver": (("silver", "silvery white"), ("white", "gray")),
    "gray": (("gray", "grey"), ("silver",)),
    "white": (("white",), ()),
    "pink": (("pink",), ()),
    "pale pink": (("pale pink", "very light pink"), ("white", "light pink")),
    "peach": (("peach", "peach-colored"), ("light orange",)),
    "purple": (("purple", "violet"), ()),
    "dark purple": (("dark purple", "plum"), ("purple",)),
    "lavender": (("lavender", "pale purple", "lilac"), ("light purple",)),
    "blue": (("blue", "indigo"), ()),
    "sky blue": (("sky blue", "bright blue", "cyan"), ("light blue", "blue")),
    "pale blue": (("pale blue", "very light blue"), ("light blue",)),
    "teal": (("teal", "dark teal"), ("green",)),
    "green": (("green", "bright green"), ()),
}
FACIAL_HAIR = {
    NONE: Words(("clean-shaven",), ("no beard",)),
    "full beard": Words(("bearded",), ("a {colour} beard", "a full {colour} beard")),
    "goatee": _having("a {colour} goatee", "a {colour} circle beard"),
    "moustache": _having("a {colour} moustache", "a {colour} mustache", "a bushy {colour} mustache"),
    "twirled moustache": _having("a twirled {colour} moustache", "a {colour} handlebar mustache"),
    "moustache and chin beard": _having("a {colour} moustache and a chin beard", loose=("a {colour} moustache",)),
    "soul patch": _having("a soul patch", "a tiny chin beard"),
    "stubble": Words(("stubbly", "unshaven"), ("stubble", "a stubble beard")),
}
EYES = {
    "angry": Words(("angry",), ("angry eyes",)),
    "closed": _having("closed eyes", "eyes closed", loose=("eyes shut",)),
    "sad": _having("sad eyes", loose=("a sad look",)),
    "shiny": _having("big shiny eyes", "sparkling eyes"),
    "sleepy": Words(("sleepy", "drowsy"), ("half-closed eyes", "sleepy eyes")),
    "smiling": _having("smiling eyes", "happy closed eyes", loose=("closed eyes",)),
    "starry": Words(("starstruck",), ("stars in the eyes", "starry eyes")),
    "winking": Words(("winking",), ("one eye closed", "a wink")),
}
BROWS = {
    "angry": _having("angry eyebrows", "furrowed eyebrows", loose=("an angry look",)),
    "worried": Words(("worried",), ("worried eyebrows", "a worried look")),
}
MOUTH = {
    "braces": _having("braces", "dental braces", "braces on the teeth"),
    "drooling": Words(("drooling",), ("drool on the chin",)),
    "frown": Words(("frowning", "unhappy"), ("a frown",), ("a sad mouth",)),
    "grin": Words(("grinning",), ("a big smile", "a toothy grin", "a wide grin"), ("a smile",)),
    "gritted teeth": Words(("nervous",), ("gritted teeth", "clenched teeth")),
    "laugh": Words(("laughing",), ("a laughing mouth", "an open smile"), ("a big smile",)),
    "pacifier": _having("a pacifier", "a pacifier in the mouth", "a dummy"),
    "puckered lips": Words(("kissing",), ("puckered lips", "kissing lips")),
    "red lips": _having("red lips", "red lipstick", loose=("lipstick", "full lips")),
    "shouting": Words(("shouting", "yelling"), ("a wide open mouth",)),
    "smile": Words(("smiling",), ("a smile", "a friendly smile")),
    "smirk": Words(("smirking",), ("a smirk", "a half smile")),
    "straight face": Words(("unimpressed", "serious"), ("a straight face", "a straight mouth")),
    "surprised": Words(("surprised",), ("a surprised look", "a surprised open mouth"), ("an open mouth",)),
    "tongue out": _having("tongue out", "a tongue sticking out", "the tongue out"),
    "upset": Words(("upset",), ("an upset mouth",), ("an open mouth",)),
}
GLASSES = {
    NONE: _having("no glasses"),
    "glasses": _having("glasses", "eyeglasses", "a pair of glasses"),
    "round": _having("round glasses", loose=("glasses",)),
    "square": _having("square glasses", "rectangular glasses", loose=("glasses",)),
    "sunglasses": _having("sunglasses", "dark sunglasses", "shades"),
}
ACCESSORY = {
    "cat ears": _having("cat ears", "a cat ear headband"),
    "clown nose": _having("a clown nose", "a red clown nose", loose=("a red nose",)),
    "face mask": _having("a face mask", "a white face mask", "a surgical mask"),
    "flower": _having("a flower in the hair", "a pink flower in the hair"),
    "flower crown": _having("a flower crown", "a wreath of flowers", "a crown of flowers"),
    "flowers": _having("flowers in the hair", "white flowers in the hair"),
    "headband": _having("a pink headband", "a headband"),
    "sleep mask": _having("a sleep mask", "a purple sleep mask", "a sleeping mask"),
    "tiara": _having("a tiara", "a golden tiara", "a gold tiara"),
}
EARRINGS = {
    "hoop": _having("a hoop earring", "hoop earrings", "an earring", "earrings"),
    "pearl": _having("a pearl earring", "a white earring"),
}
MARKS = {
    "blush": Words(("blushing",), ("rosy cheeks", "blushing cheeks")),
    "freckles": Words(("freckled",), ("freckles",)),
    "mole": _having("a mole", "a mole on the cheek", "a beauty mark"),
}
TABLES: dict[str, dict[str, Words]] = {
    "skin": SKIN,
    "hair": HAIR,
    "facial_hair": FACIAL_HAIR,
    "eyes": EYES,
    "brows": BROWS,
    "mouth": MOUTH,
    "glasses": GLASSES,
    "accessory": ACCESSORY,
    "earrings": EARRINGS,
    "marks": MARKS,
}

CLOTHES = {
    "checkered shirt": ("{colour} checkered shirt", "{colour} plaid shirt", "{colour} checked shirt"),
    "collared shirt": ("{colour} collared shirt", "{colour} polo shirt", "{colour} shirt with a collar"),
    "jacket": ("{colour} jacket", "{colour} open jacket"),
    "sweater": ("{colour} sweater", "{colour} crew-neck sweater", "{colour} jumper"),
    "sweater over a shirt": ("{colour} sweater over a collared shirt", "{colour} v-neck sweater and shirt"),
    "t-shirt": ("{colour} t-shirt", "{colour} tee", "plain {colour} shirt"),
    "tank top": ("{colour} tank top", "{colour} sleeveless top"),
    "turtleneck": ("{colour} turtleneck", "{colour} turtleneck sweater"),
    "wrap top": ("{colour} wrap top", "{colour} wrap shirt"),
}
ANY_CLOTHES = ("{colour} top", "{colour} clothes")
SHIRTS = {"checkered shirt", "collared shirt", "t-shirt", "wrap top"}  # which are called a shirt, too
CLOTHES_COLOURS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "black": (("black",), ("dark",)),
    "gray": (("gray", "grey", "dark gray"), ()),
    "white": (("white",), ()),
    "brown": (("brown", "dark brown"), ()),
    "light brown": (("light brown", "tan"), ("brown",)),
    "red": (("red",), ()),
    "orange": (("orange",), ()),
    "yellow": (("yellow", "golden yellow"), ()),
    "pale yellow": (("pale yellow", "light yellow", "cream"), ("yellow",)),
    "green": (("green",), ()),
    "turquoise": (("turquoise", "teal", "aqua"), ()),
    "sky blue": (("sky blue", "cyan", "bright blue"), ("light blue", "blue")),
    "pale blue": (("pale blue", "very light blue"), ("light blue",)),
    "blue": (("blue",), ()),
    "navy": (("navy", "navy blue", "dark blue"), ("blue",)),
    "purple": (("purple", "violet"), ()),
    "lavender": (("lavender", "lilac", "pale purple"), ("light purple",)),
    "pink": (("pink", "hot pink"), ()),
    "pale pink": (("pale pink", "very light pink"), ("light pink", "white")),
    "peach": (("peach", "peach-colored"), ("light orange",)),
}
BACKGROUNDS = {
    "white": ("white",),
    "light blue": ("light blue", "pale blue"),
    "peach": ("peach", "pale orange"),
    "light green": ("light green", "pale green", "mint green"),
    "light yellow": ("light yellow", "pale yellow"),
    "lavender": ("lavender", "light purple", "pale purple"),
}
STYLES = {
    "personas": ("flat illustration", "flat vector portrait", "flat design avatar", "minimal flat portrait"),
    "micah": ("outlined illustration", "line illustration", "bold line portrait", "illustration with black outlines"),
    "bigSmile": ("big head cartoon", "cartoon head", "big head illustration", "floating head cartoon"),
    "toonHead": ("cartoon portrait", "soft cartoon avatar", "cartoon bust", "shaded cartoon portrait"),
    "adventurer": ("outlined cartoon", "comic cartoon face", "goofy cartoon face", "comic style head"),
    "lorelei": ("ink drawing", "black and white drawing", "black ink portrait", "black and white sketch"),
}

PEOPLE = ("person", "person", "character")
WOMEN, MEN = ("woman", "woman", "lady", "girl"), ("man", "man", "guy", "boy")
CHILDREN = ("baby", "child", "kid")
YOUNG = (*PEOPLE, "kid", "child")
YOUNG_STYLES = {"bigSmile", "adventurer"}  # round heads, of any age
FEMININE = {
    "bob",
    "bob with bangs",
    "braid",
    "braids",
    "bun",
    "curly bun",
    "long",
    "long straight",
    "long wavy",
    "long with bangs",
    "low pigtails",
    "pigtails",
    "ponytail",
    "puffy bob",
    "space buns",
    "very long",
    "wavy",
}
MASCULINE = {"balding", "bald", "buzz cut", "fade", "quiff", "short", "side part", "sideburns", "undercut"}
MOST_BEFORE = 2  # adjectives before the noun


@dataclass(frozen=True)
class _Sentence:
    """Parts of a caption."""

    noun: str
    before: list[str] = field(default_factory=list[str])
    having: list[str] = field(default_factory=list[str])
    clothes: str = ""
    background: str = ""
    style: str = ""


@dataclass(frozen=True)
class AvatarCaptions:
    """Chances of each thing to be mentioned, and whether wordings may be such that another value shares."""

    keep: float = 0.85
    keep_worn: float = 0.95  # what most portraits lack: a caption that is silent about it should mean that it is absent
    keep_skin: float = 0.6
    keep_background: float = 0.7
    keep_style: float = 0.6
    keep_none: float = 0.12  # "clean-shaven", "no glasses"
    is_loose: bool = True

    @classmethod
    def complete(cls) -> "AvatarCaptions":
        """Captions that name all that a prompt decides, each in words of its own."""
        return cls(1.0, 1.0, 1.0, 1.0, 1.0, 0.0, is_loose=False)

    def __call__(self, row: Row, rng: random.Random) -> str:
        shown = draw_look(row)
        sentence = _Sentence(
            noun=self._noun(shown, YOUNG if row["style"] in YOUNG_STYLES else PEOPLE, rng),
            clothes=self._clothes(shown, rng),
            background=rng.choice(BACKGROUNDS[row["background"]]) if rng.random() < self.keep_background else "",
            style=rng.choice(STYLES[row["style"]]) if rng.random() < self.keep_style else "",
        )
        is_named = self._black_hair(row, shown)
        for column, value in self._chosen(shown, sentence.noun, rng):
            self._add(sentence, column, TABLES[column][value], is_named, rng)
        rng.shuffle(sentence.before)
        if rng.random() < 0.5:
            rng.shuffle(sentence.having)
        return (_listed if rng.random() < 0.25 else _in_prose)(sentence, rng)

    def _chosen(self, shown: Look, noun: str, rng: random.Random) -> list[tuple[str, str]]:
        chances = dict.fromkeys(TABLES, self.keep) | {"skin": self.keep_skin}
        chances |= dict.fromkeys(("facial_hair", "glasses", "accessory", "earrings", "marks"), self.keep_worn)
        said: list[tuple[str, str]] = []
        for column, words in TABLES.items():
            value = shown[column]
            if (column, value) == ("facial_hair", NONE) and noun in {*WOMEN, *CHILDREN}:
                continue
            chance = self.keep_none if value == NONE else chances[column]
            if value != UNNAMED and value in words and rng.random() < chance:
                said.append((column, value))
        return said

    def _black_hair(self, row: Row, shown: Look) -> Look:
        """Ink is black: nothing that a prompt decides, but what people say of such hair."""
        is_ink = row["style"] == "lorelei" and shown["hair"] != UNNAMED and self.is_loose
        return {**shown, "hair_colour": "black"} if is_ink else shown

    def _add(self, sentence: _Sentence, column: str, words: Words, shown: Look, rng: random.Random) -> None:
        having = (*words.having, *(words.loose if self.is_loose else ()))
        # An adjective has no place for the hair's colour.
        is_coloured = column == "hair" and shown["hair_colour"] != UNNAMED and not self.is_loose
        if words.before and not is_coloured and len(sentence.before) < MOST_BEFORE and rng.random() < 0.6:
            sentence.before.append(rng.choice(words.before))
            having = ()
        if column == "hair":
            self._add_hair(sentence, having, shown, rng)
        elif having:
            colour = self._colour(shown["facial_hair_colour"], HAIR_COLOURS, rng) if column == "facial_hair" else ""
            sentence.having.append(_coloured(rng.choice(having), colour))

    def _add_hair(self, sentence: _Sentence, having: tuple[str, ...], shown: Look, rng: random.Random) -> None:
        length = shown["hair_length"]
        if length != UNNAMED:  # which the wording has no say in
            having = tuple(wording for wording in having if "short" not in wording)
        if not having:
            return
        if not self.is_loose and shown["hair_colour"] != UNNAMED:
            having = tuple(wording for wording in having if COLOUR in wording) or having
        colour = self._colour(shown["hair_colour"], HAIR_COLOURS, rng)
        if length != UNNAMED and rng.random() < self.keep:
            colour = " ".join(filter(None, (rng.choice(HAIR_LENGTHS[length]), colour)))
        sentence.having.append(_coloured(rng.choice(having), colour))

    def _colour(
        self, name: str, words: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]], rng: random.Random
    ) -> str:
        if name == UNNAMED or rng.random() >= self.keep_worn:
            return ""
        exact, loose = words[name]
        return rng.choice((*exact, *loose) if self.is_loose else exact)

    def _clothes(self, shown: Look, rng: random.Random) -> str:
        kind = shown["clothes"]
        if kind == UNNAMED or rng.random() >= self.keep:
            return ""
        wordings, colour = CLOTHES[kind], self._colour(shown["clothes_colour"], CLOTHES_COLOURS, rng)
        if self.is_loose and colour and rng.random() < 0.25:
            wordings = (*ANY_CLOTHES, *(["{colour} shirt"] * 3 if kind in SHIRTS else []))
        return _coloured(rng.choice(wordings), colour)

    def _noun(self, shown: Look, people: tuple[str, ...], rng: random.Random) -> str:
        """A word for a man or a woman only where the drawing suggests one."""
        if shown["mouth"] == "pacifier" and rng.random() < 0.5:
            return rng.choice(CHILDREN)
        suggestive = rng.random()
        if shown["facial_hair"] not in {NONE, UNNAMED}:
            return rng.choice(MEN if suggestive < 0.7 else people)
        if shown["hair"] in FEMININE or shown["mouth"] == "red lips":
            return rng.choice(WOMEN if suggestive < 0.6 else people)
        if shown["hair"] in MASCULINE:
            return rng.choice(MEN if suggestive < 0.4 else people)
        return rng.choice(people)


def _in_prose(sentence: _Sentence, rng: random.Random) -> str:
    """A sentence, with what surrounds the portrait behind it or before it."""
    text = " ".join((*sentence.before, sentence.noun))
    if sentence.having:
        text += " with " + join_words(sentence.having, rng)
    if sentence.clothes:
        text += rng.choice((", ", ", wearing ", ", in " if sentence.having else " in ")) + _dressed(
            sentence.clothes, rng
        )
    behind: list[str] = []
    if sentence.style and rng.random() < 0.4:
        text = f"{sentence.style} of a {text}"
        text = text if rng.random() < 0.3 else f"a {text}"
    else:
        text = f"a {text}"
        behind += [sentence.style] if sentence.style else []
    if sentence.background:
        behind.append(_backdrop(sentence.background, rng))
    rng.shuffle(behind)
    return _with_articles(", ".join((text, *behind)))


def _listed(sentence: _Sentence, rng: random.Random) -> str:
    """Words between commas, as short as they get."""
    parts = [*sentence.having, *([sentence.clothes] if sentence.clothes else [])]
    parts = [re.sub(r"^an? ", "", part) for part in parts]
    rng.shuffle(parts)
    around = [f"{sentence.background} background" if sentence.background else "", sentence.style]
    rng.shuffle(around)
    subject = " ".join((*sentence.before, sentence.noun))
    return ", ".join(filter(None, (subject, *parts, *around)))


def _backdrop(colour: str, rng: random.Random) -> str:
    return rng.choice((f"{colour} background", f"{colour} background", f"on a {colour} background", f"on {colour}"))


def _dressed(clothes: str, rng: random.Random) -> str:
    bare = clothes.endswith("clothes") or rng.random() < 0.3
    return clothes if bare else f"a {clothes}"


def join_words(items: list[str], rng: random.Random) -> str:
    """Joins words by commas, mostly with "and" before the last."""
    if len(items) == 1 or rng.random() < 0.2:
        return ", ".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]


def _coloured(wording: str, colour: str) -> str:
    return wording.replace(COLOUR, f"{colour} " if colour else "")


def _with_articles(text: str) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def wordings(words: Words) -> Iterable[str]:
    """Every wording of a value, without colours."""
    return (wording.replace(COLOUR, "") for wording in (*words.before, *words.having, *words.loose))
