"""OpenAI's Images API: requests, answers and events of `/v1/images/*`. Our own fields are extras."""

from typing import Annotated, Literal

from pydantic import Field

from server.schemas.base import Sent
from server.schemas.edit import EditOptions
from server.schemas.generation import DrawingOptions, GenerationRequest, Positions

OutputFormat = Literal["png", "webp", "jpeg"]
Order = Annotated[str | Positions, Field(description="An order's name, or a permutation of all grid positions")]


class ImagesRequest(DrawingOptions):
    """OpenAI's fields, then ours. What this server cannot keep is refused with a sentence, not ignored."""

    prompt: str = Field(description="What the picture shows")
    model: str | None = Field(None, max_length=200, description="A name from GET /v1/models, or the default one")
    n: int | None = Field(None, ge=1, description="Images to make; 1 if absent")
    size: str | None = Field(None, max_length=40, description="`auto`, or the size of the model's pictures")
    quality: str | None = Field(None, max_length=40, description="`auto` or `standard`: there is one quality")
    background: str | None = Field(None, max_length=40, description="`auto` or `opaque`")
    moderation: Literal["low", "auto"] | None = Field(None, description="Accepted; nothing is filtered here")
    style: str | None = Field(None, max_length=40, description="Refused: describe the style in the prompt")
    user: str | None = Field(None, max_length=1000, description="Accepted, and not kept")
    safety_identifier: str | None = Field(None, max_length=1000, description="Accepted, and not kept")
    output_format: OutputFormat | None = Field(None, description="png if absent")
    output_compression: int | None = Field(None, ge=0, le=100, description="Quality of webp and jpeg; 100 if absent")
    response_format: Literal["b64_json", "url"] | None = Field(None, description="b64_json if absent")
    stream: bool | None = Field(None, description="Server-sent events instead of one answer")
    partial_images: int | None = Field(
        None, ge=0, le=3, description="Partial images of each image while streaming; a picture of few steps has fewer"
    )

    order: Order | None = None
    metadata: bool = Field(True, description="Whether a PNG carries a text chunk from which it can be made again")

    def to_generation(self) -> GenerationRequest:
        shared = type(self).model_fields.keys() & GenerationRequest.model_fields.keys()
        given = {name: getattr(self, name) for name in shared & self.model_fields_set}
        return GenerationRequest.model_validate({**given, "n": self.n or 1, "previews": False})


class ImageEditFields(ImagesRequest, EditOptions):
    """What stands beside the files of `/v1/images/edits`."""

    input_fidelity: str | None = Field(None, max_length=40, description="`low`: what is kept is kept exactly anyway")


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
    """What OpenAI's shape has no place for."""

    job_id: str
    seed: int
    fingerprint: str  # of the model's files
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
    size: str
    usage: Usage
    oar: JobFacts


class _ImageEvent(Sent):
    b64_json: str
    created_at: int
    size: str
    quality: Literal["auto"] = "auto"
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
