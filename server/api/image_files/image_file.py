"""Facts in the bytes of an image file, before a pixel is decoded."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["PNG", "JPEG", "WEBP"]
MAX_PARTS = 1 << 14  # chunks or segments of one file: each costs a step in Python
TURNED = {5, 6, 7, 8}  # orientations that swap width and height


class MalformedImage(ValueError):
    """The message goes on from "the image ..."."""


@dataclass(frozen=True)
class ImageFile:
    """A file without its metadata: the decoder gets the parts that pixels are made of, and nothing else."""

    kind: Kind
    size: tuple[int, int]  # width, height as stored
    data: bytes
    orientation: int = 1  # of EXIF, 1 to 8
    num_scans: int = 1
    is_animated: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as a viewer shows the picture."""
        return (self.size[1], self.size[0]) if self.orientation in TURNED else self.size

    @property
    def num_pixels(self) -> int:
        return self.size[0] * self.size[1]
