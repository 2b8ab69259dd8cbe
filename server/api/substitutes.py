"""Fields of OpenAI's that a model here cannot keep: the answer says what was done instead, or refuses."""

from oar_wire.errors import InvalidField, InvalidRequest
from oar_wire.model import ModelInfo
from oar_wire.openai import ImageEditFields, ImagesRequest

HEADER = "OAR-Warning"


def substitutes(requested: ImagesRequest, model: ModelInfo, *, is_strict: bool) -> tuple[str, ...]:
    """One sentence for each field whose value is not kept. Raises InvalidRequest for the first where `is_strict`."""
    found = _unkept(requested, model)
    if found and is_strict:
        field, sentence = next(iter(found.items()))
        raise _refusal(field, sentence)
    return tuple(f"{field}: {sentence}" for field, sentence in found.items())


def check_sense(requested: ImagesRequest) -> None:
    """Raises InvalidRequest for fields that contradict one another."""
    if (requested.output_format or "png") == "png" and requested.output_compression not in {None, 100}:
        raise _refusal("output_compression", "a PNG loses nothing; ask for webp or jpeg")
    if requested.partial_images and not requested.stream:
        raise _refusal("partial_images", "partial images come with stream")
    if requested.stream and requested.response_format == "url":
        raise _refusal("response_format", "a stream carries the pictures themselves, as b64_json")


def _unkept(requested: ImagesRequest, model: ModelInfo) -> dict[str, str]:
    found: dict[str, str] = {}
    if requested.size not in {None, "auto", model.size}:
        found["size"] = f"{model.name} makes pictures of {model.size} pixels, not of {requested.size}"
    if requested.background == "transparent":
        found["background"] = "pictures are opaque here"
    if requested.style is not None:
        found["style"] = f"{requested.style} means nothing here; describe the style in the prompt"
    if isinstance(requested, ImageEditFields) and requested.input_fidelity == "high":
        found["input_fidelity"] = "what the mask leaves is kept exactly, and nothing else can be chosen"
    return found


def _refusal(field: str, sentence: str) -> InvalidRequest:
    return InvalidField(f"{field}: {sentence}", field=field)
