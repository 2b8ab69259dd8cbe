"""Requests of all kinds, in words that every version knows."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

NUM_PICTURES = 20  # of a model
FIRST_SEED = 1000
ORDERS = (
    *("raster", "spiral", "hilbert", "halton", "random", "locality", "confidence", "likelihood", "distilled"),
    "shortlist",
)
STEPS = (None, 16, 8, 5, 20)
GROUP_SIZES = ("cosine", "linear", "constant", "adaptive")
EDITS = ({"mask": True}, {"mask": True, "strength": 0.5}, {"offset": True}, {"mask": True, "feather": 2})


@dataclass(frozen=True)
class SentRequest:
    name: str
    path: str
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        """Names what is special about it, in a few words."""
        order = self.body["order"]
        words = [order if isinstance(order, str) else "a list of positions", f"{self.body['steps']} steps"]
        words += [self.body["group_sizes"], *(["guidance interval"] if "guidance_interval" in self.body else [])]
        return ", ".join([*words, *(["edit"] if "image" in self.body else [])])


def requests_of(model: dict[str, Any], count: int = NUM_PICTURES) -> list[SentRequest]:
    """`count` requests of a model's entry in GET /v1/models: ten orders, guidance, draws, adaptive groups, edits."""
    return [_request(model, number) for number in range(count)]


def _request(model: dict[str, Any], number: int) -> SentRequest:
    prompts, num_tokens = model["example_prompts"], model["num_tokens"]
    steps = STEPS[number % 5] if number % 7 else None
    body: dict[str, Any] = {
        "model": model["id"],
        "prompt": prompts[number % len(prompts)],
        "seed": FIRST_SEED + number,
        "order": _order(model, number),
        "steps": num_tokens if steps is None else min(steps, num_tokens),
        "group_sizes": GROUP_SIZES[number % 4],
        "guidance": (1.0, 1.5, 2.0, 3.0)[number % 4],
        "guidance_schedule": ("constant", "linear", "cosine")[number % 3],
        "temperature": (1.0, 0.7)[number % 2],
        "top_k": (0, 50, 0)[number % 3],
        "top_p": (1.0, 0.9, 0.95)[number % 3],
    }
    if number % 3 == 0:
        body["guidance_interval"] = [0.1, 0.7]
    name = f"{model['id']}/{number}"
    if number % 6:
        return SentRequest(name, "/v1/generations", body)
    return SentRequest(name, "/v1/edits", body | _edit(model["image_size"], EDITS[number // 6 % 4]))


def _order(model: dict[str, Any], number: int) -> str | list[int]:
    """Every tenth is the same. A model without an order policy gets lists of positions in place of its orders."""
    order = ORDERS[number % len(ORDERS)]
    if order in model["orders"]:
        return order
    backwards = list(reversed(range(model["num_tokens"])))
    return backwards if order == "distilled" else backwards[::2] + backwards[1::2]


def _edit(size: Sequence[int], changes: dict[str, Any]) -> dict[str, Any]:
    """A drawn picture, and a mask that has its right half and a corner painted anew."""
    height, width = size
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, width // 2, height // 2), fill=(200, 60, 30))
    body: dict[str, Any] = {"image": _base64(image)}
    if "offset" in changes:
        return body | {"offset": [height // 4, -(width // 4)]}
    mask = Image.new("RGBA", (width, height), (0, 0, 0, 255))
    draw = ImageDraw.Draw(mask)
    draw.rectangle((width // 2, 0, width, height), fill=(0, 0, 0, 0))
    draw.rectangle((0, height * 3 // 4, width // 4, height), fill=(0, 0, 0, 0))
    return body | changes | {"mask": _base64(mask)}


def _base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
