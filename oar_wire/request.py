"""`POST /v1/generations`: what a request says."""

from typing import TYPE_CHECKING

from pydantic import Field, create_model

from oar_wire import options
from oar_wire.options import JobOptions

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


class GenerationRequest(DrawingOptions):
    """Limits that depend on a model or a setting are checked later, with the same error shape."""

    prompt: str = Field(description="What the picture shows")
    model: str | None = Field(None, max_length=200, description="A name from GET /v1/models, or the default one")
    n: int = Field(1, ge=1, description="Images to make: same seed, image index 0 to n-1")
    previews: bool = Field(True, description="Whether to send `preview` events")
