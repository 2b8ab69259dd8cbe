"""WebP: a RIFF file, whose first chunk tells the size. Its metadata is never read: browsers ignore it as well."""

from server.api.image_files.image_file import ImageFile, MalformedImage

MAGIC, FORM = b"RIFF", b"WEBP"


def read_webp(data: bytes) -> ImageFile:
    """Raises MalformedImage."""
    return ImageFile("WEBP", _size(data), data)


def _size(data: bytes) -> tuple[int, int]:
    """Pillow's decoder takes memory for the whole canvas as soon as it is opened, so this is checked before."""
    match data[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
        case _:
            raise MalformedImage("cannot be decoded: it is no WebP behind its first bytes")
