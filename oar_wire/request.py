"""`POST /v1/generations`: what a request says."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, create_model

from oar_wire import options
from oar_wire.base import Accepted
from oar_wire.errors import InvalidCondition, InvalidPrompt, MissingField
from oar_wire.options import MAX_NAME, BadOption, ConditionKind, JobOptions

MOST_KEPT = 24  # previews of one image

if TYPE_CHECKING:

    class DrawingOptions(JobOptions):
        """The options of a model are read by name: `oar_wire.options` declares them."""

else:
    DrawingOptions = create_model(
        "DrawingOptions",
        __base__=JobOptions,
        __module__=__name__,
        __doc__="What every way to ask for pictures has in common; null is the model's default.",
        **options.request_fields(),
    )


class Condition(Accepted):
    """The subject of a picture, for models that are not made for prompts."""

    class_name: Annotated[str, Field(max_length=MAX_NAME)] | Annotated[int, Field(ge=0)] = Field(
        alias="class", description="A class by one of its names, or by its number"
    )


class GenerationRequest(DrawingOptions):
    """Limits that depend on a model or a setting are checked later, with the same error shape."""

    prompt: str = Field(
        "", description="Text of the picture; required unless `condition` is set or the model needs none"
    )
    condition: Condition | None = Field(None, description="A class instead of a prompt, for a model of classes")
    model: str | None = Field(None, max_length=200, description="A name from GET /v1/models; absent: the default model")
    n: int = Field(1, ge=1, description="Number of images; index 0 to n-1")
    callback_url: str | None = Field(None, max_length=2000, description="Address that is told of the job's end")
    previews: bool = Field(True, description="Whether to send `preview` events")
    kept_previews: int = Field(
        0, ge=0, le=MOST_KEPT, description="Of each image, spread over its steps: `partial` events, which stay"
    )

    def check_says_what(self, condition: ConditionKind, model: str) -> None:
        """Raises BadOption where nothing says what the picture shows, both ways do, or the model has no classes; and
        where anything does for a model that draws without a condition."""
        if condition == "none":
            self._check_says_nothing(model)
        elif self.condition is None:
            if "prompt" not in self.model_fields_set:
                raise BadOption("prompt is required", kind=MissingField, field="prompt")
            options.check_prompt(self.prompt)
        elif self.prompt:
            message = "prompt and condition both say what the picture shows: one of them is enough"
            raise BadOption(message, kind=InvalidCondition, field="condition")
        elif condition != "class":
            message = f"{model} draws no classes: it reads a prompt"
            raise BadOption(message, kind=InvalidCondition, field="condition")

    def _check_says_nothing(self, model: str) -> None:
        """Raises BadOption."""
        message = f"{model} draws without a condition: it takes neither prompt nor class"
        if self.condition is not None:
            raise BadOption(message, kind=InvalidCondition, field="condition")
        if self.prompt.strip():
            raise BadOption(message, kind=InvalidPrompt, field="prompt")
