"""Caption sources: how a label row becomes the text that a model is trained on.

People do not write prompts in a data set's own words. `SpriteCaptions` therefore says the same attributes in many ways,
in any order, and leaves some out, so that a prompt with "blue trousers" or without shoes is understood.
"""

import random
from collections.abc import Callable, Mapping

from oar_core.train.avatar_captions import AvatarCaptions, join_words

Row = Mapping[str, str]
CaptionSource = Callable[[Row, random.Random], str]


def plain_caption(row: Row, _rng: random.Random) -> str:
    return row["caption"]


def class_caption(row: Row, _rng: random.Random) -> str:
    """The name or the number of the picture's class, for models of classes."""
    return row.get("class") or row["caption"]


# Per attribute index: the data set's own word first (see its attributes.json), then what people also call it.
SKINS = (
    ("fair-skinned", "light-skinned", "pale"),
    ("tan-skinned", "tanned"),
    ("ash-grey-skinned", "grey-skinned", "gray-skinned"),
    ("pale lavender-skinned", "lavender-skinned", "pale violet-skinned"),
    ("light brown-skinned", "brown-skinned"),
    ("dark brown-skinned", "dark-skinned"),
    ("green-skinned", "green"),
)
HAIR = (
    ("spiky green hair", "green spiky hair", "green hair"),
    ("blue topknot hair", "blue hair in a topknot", "a blue topknot", "blue hair"),
    ("spiky orange hair", "orange spiky hair", "spiky golden hair", "spiky blond hair"),
    ("parted silver hair", "silver hair", "white hair", "grey hair", "gray hair"),
    ("short crimson hair", "crimson hair", "short red hair", "red hair"),
    ("curly purple hair", "purple hair", "purple curls", "a purple afro"),
    ("half-shaved dark hair", "dark hair", "short dark hair", "black hair", "short black hair"),
    ("short bright red hair", "bright red hair", "short red hair", "red hair"),
    ("spiky pink hair", "pink spiky hair", "pink hair"),
    ("curly orange hair", "orange curls", "an orange afro", "curly ginger hair", "ginger hair"),
)
TOPS = (
    ("maroon shirt", "maroon top", "dark red shirt", "burgundy shirt"),
    ("cyan shirt", "cyan top", "turquoise shirt", "light blue shirt", "blue shirt"),
    ("cream shirt", "cream top", "white shirt", "beige shirt"),
    ("steel breastplate", "breastplate", "steel armour", "metal armor", "grey armour"),
    ("brown leather vest", "leather vest", "brown vest", "brown shirt", "brown top", "brown leather shirt"),
    ("cream suit jacket with tie", "suit jacket with a tie", "suit and tie", "white suit jacket"),
    ("chainmail", "chain mail", "chainmail armour", "a shirt of chainmail", "grey chainmail"),
)
BOTTOMS = (
    ("white trousers", "white pants"),
    ("gold-plated leggings", "golden leggings", "gold leggings", "golden leg armour"),
    ("red trousers", "red pants", "dark red trousers"),
    ("steel-plated leggings", "steel leggings", "metal leggings", "steel leg armour"),
    ("teal trousers", "teal pants", "blue trousers", "blue pants", "blue-grey trousers"),
    ("dark green trousers", "green trousers", "dark green pants", "green pants"),
    ("long brown skirt", "brown skirt", "long skirt"),
)
SHOES = (
    ("brown shoes", "brown boots", "leather shoes"),
    ("golden boots", "gold boots", "golden shoes"),
    ("steel boots", "metal boots", "silver boots", "grey boots"),
)
ACTIONS = {
    "spellcast": ("casting a spell", "casting magic", "doing magic"),
    "thrust": ("thrusting", "stabbing", "thrusting a spear"),
    "walk": ("walking", "taking a walk", "strolling"),
    "slash": ("slashing", "swinging a sword", "striking"),
    "shoot": ("shooting a bow", "shooting", "drawing a bow", "shooting an arrow"),
}
VIEWS = {
    "back": ("seen from the back", "seen from behind", "from behind", "facing away", "back view"),
    "left": ("seen from the left side", "seen from the left", "facing left", "looking to the left"),
    "front": ("seen from the front", "facing the viewer", "facing forward", "from the front", "front view"),
    "right": ("seen from the right side", "seen from the right", "facing right", "looking to the right"),
}
NOUNS = ("person", "character", "figure", "hero", "man", "woman", "villager")
ORC = 6


class SpriteCaptions:
    """Captions of LPC sprite characters, from the attribute columns of their label rows."""

    def __init__(self, *, original_share: float = 0.35, keep: float = 0.85) -> None:
        self.original_share = original_share
        self.keep = keep  # chance of each attribute to be mentioned

    def __call__(self, row: Row, rng: random.Random) -> str:
        if rng.random() < self.original_share:
            return row["caption"]
        clothes = [
            rng.choice(words[int(row[column])])
            for column, words in (("hair", HAIR), ("topwear", TOPS), ("bottomwear", BOTTOMS), ("shoes", SHOES))
            if rng.random() < self.keep
        ]
        if rng.random() < 0.4:
            rng.shuffle(clothes)
        parts = [self._subject(row, rng) + (" with " + join_words(clothes, rng) if clothes else "")]
        if rng.random() < self.keep:
            parts.append(rng.choice(ACTIONS[row["action"]]))
        if rng.random() < self.keep:
            parts.append(rng.choice(VIEWS[row["direction"]]))
        return ", ".join(parts)

    def _subject(self, row: Row, rng: random.Random) -> str:
        body = int(row["body"])
        noun = rng.choice(NOUNS) if rng.random() < 0.5 else "person"
        if body == ORC and rng.random() < 0.8:
            return rng.choice(("an orc", "a green orc"))
        if rng.random() >= self.keep:
            return f"a {noun}"
        skin = rng.choice(SKINS[body])
        article = "an" if skin[0] in "aeiou" else "a"
        return f"{article} {skin} {noun}"


def title_or_caption(row: Row, rng: random.Random) -> str:
    """Shop pictures have a title, as a merchant wrote it, and a caption made from their labels: one of the two."""
    return row["title"] if row["title"] and rng.random() < 0.5 else row["caption"]


CAPTION_SOURCES: dict[str, CaptionSource] = {
    "plain": plain_caption,
    "classes": class_caption,
    "sprites": SpriteCaptions(),
    "titles": title_or_caption,
    "avatars": AvatarCaptions(),
}
