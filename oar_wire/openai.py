"""OpenAI's Images API: requests, answers and events of `/v1/images/*`. Our own fields are extras."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from oar_wire.base import Accepted, Sent
from oar_wire.edit import EditSettings
from oar_wire.model import ModelInfo
from oar_wire.request import DrawingOptions, GenerationRequest

OutputFormat = Literal["png", "webp", "jpeg"]
Quality = Literal["low", "medium", "high"]
# A width and a height in pixels. Which of them a model has is looked at later.
SIZE = r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"
MAX_IMAGES = 16  # that OpenAI's edits take; here it is one
# What OpenAI's names of a quality mean here.
QUALITIES: Mapping[str, Quality] = {
    "auto": "medium",
    "standard": "medium",
    "hd": "high",
    "low": "low",
    "medium": "medium",
    "high": "high",
}


class ImagesRequest(DrawingOptions):
    """OpenAI's fields, then ours. What OpenAI documents and this server cannot keep is named in the answer, or refused
    where `OAR_OPENAI_STRICT` is set; what nobody documents is always refused."""

    prompt: str = Field(description="What the picture shows")
    model: str | None = Field(None, max_length=200, description="A name from GET /v1/models; absent: the default model")
    n: int | None = Field(None, ge=1, description="Images to make; 1 if absent")
    size: str | None = Field(
        None, pattern=SIZE, description="`auto`, or a width and a height; pictures have the model's own size"
    )
    quality: Literal["auto", "standard", "hd", "low", "medium", "high"] | None = Field(
        None,
        description="Where no `steps` are given: half of the model's own for `low`, twice as many for `high` and `hd`",
    )
    background: Literal["auto", "opaque", "transparent"] | None = Field(None, description="Pictures are opaque")
    moderation: Literal["low", "auto"] | None = Field(None, description="Accepted; nothing is filtered here")
    style: Literal["vivid", "natural"] | None = Field(None, description="Nothing: describe the style in the prompt")
    user: str | None = Field(None, max_length=1000, description="Accepted, and not kept")
    safety_identifier: str | None = Field(None, max_length=1000, description="Accepted, and not kept")
    output_format: OutputFormat | None = Field(None, description="png if absent")
    output_compression: int | None = Field(None, ge=0, le=100, description="Quality of webp and jpeg; 100 if absent")
    response_format: Literal["b64_json", "url"] | None = Field(
        None, description="Both if absent: OpenAI's older models answer with the one, its newer ones with the other"
    )
    stream: bool | None = Field(None, description="Server-sent events instead of one answer")
    partial_images: int | None = Field(
        None, ge=0, le=3, description="Partial images of each image while streaming; a picture of few steps has fewer"
    )

    metadata: bool = Field(True, description="Whether a PNG carries a text chunk from which it can be made again")

    @property
    def quality_level(self) -> Quality:
        return QUALITIES[self.quality or "auto"]

    def to_generation(self, model: ModelInfo) -> GenerationRequest:
        shared = type(self).model_fields.keys() & GenerationRequest.model_fields.keys()
        given = {name: getattr(self, name) for name in shared & self.model_fields_set}
        asked: int | None = given.get("steps")
        has_sizes = isinstance(given.get("group_sizes"), list)  # they say the number of steps
        steps = self._steps(model) if asked is None and not has_sizes else asked
        ours = {"prompt": self.prompt, "n": self.n or 1, "previews": False, "steps": steps}
        return GenerationRequest.model_validate({**given, **ours})

    def _steps(self, model: ModelInfo) -> int:
        usual = model.defaults.steps
        match self.quality_level:
            case "low":
                return max(1, usual // 2)
            case "medium":
                return usual
            case "high":
                return min(2 * usual, model.num_tokens)


class ImageEditFields(ImagesRequest, EditSettings):
    """Fields beside the files of `/v1/images/edits`."""

    input_fidelity: Literal["high", "low"] | None = Field(
        None, description="Nothing: what the mask leaves is kept exactly anyway"
    )


class ImageReference(Accepted):
    """A picture in a JSON body."""

    image_url: str | None = Field(None, description="A `data:` URL; this server fetches nothing from elsewhere")
    file_id: str | None = Field(None, max_length=200, description="Refused: no files are kept here")


Picture = ImageReference | str


class ImageEditBody(ImageEditFields):
    """The whole edit as JSON. Pictures are references, as OpenAI has them, or base64."""

    images: list[Picture] | None = Field(None, min_length=1, max_length=MAX_IMAGES, description="One picture")
    image: str | None = Field(None, description="The same, as base64 or a `data:` URL")
    mask: Picture | None = Field(None, description="PNG of the same size; pixels of alpha 0 are painted anew")


class VariationFields(ImageEditFields):
    """Fields beside the file of `/v1/images/variations`; all but OpenAI's own are extras."""

    prompt: str = Field("", description="What the picture shows; a variation without one is not guided")

    def to_generation(self, model: ModelInfo) -> GenerationRequest:
        request = super().to_generation(model)
        if request.prompt.strip() or model.condition == "none":
            return request
        return request.model_copy(update={"prompt": "", "guidance": 1.0})  # there is nothing to guide to


class InputTokens(Sent):
    text_tokens: int
    image_tokens: int


class Usage(Sent):
    """Tokens of the prompt, tokens of the source picture that are kept, and tokens that were drawn."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    output_tokens_details: InputTokens
    total_tokens: int

    @classmethod
    def of(cls, *, text: int, kept: int, drawn: int) -> "Usage":
        return cls(
            input_tokens=text + kept,
            input_tokens_details=InputTokens(text_tokens=text, image_tokens=kept),
            output_tokens=drawn,
            output_tokens_details=InputTokens(text_tokens=0, image_tokens=drawn),
            total_tokens=text + kept + drawn,
        )


class JobFacts(Sent):
    """Facts that OpenAI's shape has no place for."""

    job_id: str
    model: str  # the one that was used, by its own name
    seed: int
    fingerprint: str  # of the model's files
    warnings: tuple[str, ...] = ()  # what was asked for and could not be kept
    index: int | None = None  # of the image within the request; events only


class ImageData(Sent):
    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None  # prompts are never revised


class ImagesResponse(Sent):
    created: int
    data: list[ImageData]
    background: Literal["opaque"] = "opaque"
    output_format: OutputFormat
    quality: Quality
    size: str
    usage: Usage
    oar: JobFacts


class _ImageEvent(Sent):
    b64_json: str
    created_at: int
    size: str
    quality: Quality
    background: Literal["opaque"] = "opaque"
    output_format: OutputFormat
    oar: JobFacts


class PartialImage(_ImageEvent):
    type: Literal["image_generation.partial_image", "image_edit.partial_image"]
    partial_image_index: int  # from 0, for each image


class FinishedImage(_ImageEvent):
    """The usage of several images' events sums up to the request's: the input counts with the first."""

    type: Literal["image_generation.completed", "image_edit.completed"]
    usage: Usage
