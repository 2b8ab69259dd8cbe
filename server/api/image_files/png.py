"""PNG: chunks of a length, a kind, a body and a checksum."""

import struct
import zlib
from collections.abc import Iterator

from server.api.image_files.exif import orientation
from server.api.image_files.image_file import MAX_PARTS, ImageFile, MalformedImage

MAGIC = b"\x89PNG\r\n\x1a\n"
PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}
GREY = 0  # colour type
CHUNK_FRAME = 12  # bytes of a chunk around its body


def read_png(data: bytes) -> ImageFile:
    """Raises MalformedImage."""
    width = height = depth = colour = 0
    kept: list[bytes] = []
    exif: bytes | None = None
    num_frames, has_pixels = 1, False
    for index, (kind, start, end) in enumerate(_chunks(data)):
        body = data[start:end]
        if index == 0:
            if kind != b"IHDR" or len(body) != 13:
                raise MalformedImage("cannot be decoded: it is no PNG behind its first bytes")
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
        has_pixels = has_pixels or kind == b"IDAT"
        if kind in PIXELS:
            is_grey_key = kind == b"tRNS" and colour == GREY
            kept.append(_transparent_grey(body, depth) if is_grey_key else data[start - 8 : end + 4])
        # Browsers and libpng go by the first eXIf chunk, and by none behind the pixels.
        elif kind == b"eXIf" and exif is None and not has_pixels:
            exif = body
        elif kind == b"acTL" and not has_pixels:
            num_frames = int.from_bytes(body[:4], "big")
        if kind == b"tRNS" and depth == 16:
            raise MalformedImage("has 16 bits a channel and a transparent colour; send an alpha channel, or 8 bits")
    return ImageFile(
        kind="PNG",
        size=(width, height),
        data=b"".join((MAGIC, *kept, _chunk(b"IEND", b""))),
        orientation=1 if exif is None else orientation(exif),
        is_animated=num_frames > 1,
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and where the body starts and ends, up to IEND. What comes behind IEND is not part of the picture."""
    position = len(MAGIC)
    for _ in range(MAX_PARTS):
        if position + CHUNK_FRAME > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise MalformedImage("cannot be decoded: it is cut short")
        if kind == b"IEND":
            return
        yield kind, position + 8, end
        position = end + 4
    raise MalformedImage(f"has more than {MAX_PARTS} chunks")


def _transparent_grey(body: bytes, depth: int) -> bytes:
    """The chunk with the grey as Pillow compares it: of the pixel's value in 8 bits."""
    if depth not in {2, 4}:
        return _chunk(b"tRNS", body)
    grey = int.from_bytes(body, "big") & ((1 << depth) - 1)
    return _chunk(b"tRNS", struct.pack(">H", grey * 255 // ((1 << depth) - 1)))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
