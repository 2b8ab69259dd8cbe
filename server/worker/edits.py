"""The source picture of an edit, from the bytes beside the job to what the engine and the renderer need."""

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from oar_core.engine.sequence import KnownTokens
from oar_core.errors import RequestError
from oar_core.models.model import Model
from oar_core.sampling.edit import Edit
from oar_wire.job import EditParams


@dataclass(frozen=True)
class JobEdit:
    """An edit as its job runs it. The same bytes give the same one, so a job that is begun again paints the same."""

    edit: Edit
    feather: int

    @classmethod
    def open(cls, pipeline: Model, params: EditParams, png: bytes, *, seed: int) -> "JobEdit":
        """`png` is RGBA and transparent where it is painted; for outpaint it is the part on the canvas.

        Raises RequestError."""
        with Image.open(io.BytesIO(png)) as picture:
            rgba = np.asarray(picture.convert("RGBA"))
        pixels, mask = np.ascontiguousarray(rgba[..., :3]), rgba[..., 3] == 0
        match params.mode:
            case "inpaint":
                edit = Edit.inpaint(pipeline, pixels, mask)
            case "vary":
                edit = Edit.vary(pipeline, pixels, mask, strength=params.strength, seed=seed)
            case "outpaint":
                edit = Edit.outpaint(pipeline, pixels, params.offset)
        return cls(edit, params.feather)

    @property
    def given(self) -> KnownTokens:
        return self.edit.known

    def lay(self, painted: UInt8[np.ndarray, "B Y X 3"]) -> UInt8[np.ndarray, "B Y X 3"]:
        return self.edit.lay(painted, feather=self.feather)


class SourceMissing(RequestError):
    code = "source_missing"
