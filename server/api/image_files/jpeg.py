"""JPEG: segments behind markers, and the compressed pixels behind each start of a scan."""

import re
from collections.abc import Iterator

from server.api.image_files.exif import orientation
from server.api.image_files.image_file import MAX_PARTS, ImageFile, MalformedImage

MAGIC = b"\xff\xd8\xff"
# Neither a byte that is stuffed into compressed pixels, nor a restart, nor a fill byte.
MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
WINDOW = 1 << 16  # bytes that are searched at once: other threads go on in between
END, SCAN = 0xD9, 0xDA
ALONE = {0x01, 0xD8, END}  # markers without a segment
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
TABLES = {0xC4, 0xCC, 0xDB, 0xDD}
JFIF, EXIF, ADOBE = 0xE0, 0xE1, 0xEE  # JFIF and Adobe say what the colours are
KEPT = {SCAN, END, JFIF, ADOBE} | FRAMES | TABLES
EXIF_HEAD = b"Exif\0"
EXIF_HEAD_BYTES = 6
LENGTH_BYTES = 2


def read_jpeg(data: bytes) -> ImageFile:
    """The first picture of the file, as phones put several into one. Raises MalformedImage."""
    size: tuple[int, int] | None = None
    exif: bytes | None = None
    num_scans = 0
    kept = [data[:2]]
    for code, body, whole in _segments(data):
        if code in FRAMES and size is None:
            size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
        # Browsers go by the first EXIF alone, whatever it is worth.
        if code == EXIF and exif is None and body.startswith(EXIF_HEAD):
            exif = body[EXIF_HEAD_BYTES:]
        if code in KEPT:
            kept.append(whole)
        num_scans += code == SCAN
    if size is None or not num_scans:
        raise MalformedImage("cannot be decoded: it is cut short")
    return ImageFile("JPEG", size, b"".join(kept), 1 if exif is None else orientation(exif), num_scans)


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Code, body, and all bytes of each, up to the end of the picture. Those of a scan reach to the next marker."""
    marker = _next_marker(data, 2)
    for _ in range(MAX_PARTS):
        if marker is None:
            return
        code = marker[1][0]
        end = marker.end() if code in ALONE else _segment_end(data, marker)
        following = None if code == END else _next_marker(data, end)
        stop = end if code != SCAN else following.start() if following else len(data)
        yield code, data[marker.end() + LENGTH_BYTES : end], data[marker.start() : stop]
        marker = following
    raise MalformedImage(f"has more than {MAX_PARTS} segments")


def _next_marker(data: bytes, start: int) -> re.Match[bytes] | None:
    for position in range(start, len(data), WINDOW):
        marker = MARKER.search(data, position, position + WINDOW + 1)
        if marker is not None:
            return marker
    return None


def _segment_end(data: bytes, marker: re.Match[bytes]) -> int:
    """Raises MalformedImage."""
    length = int.from_bytes(data[marker.end() : marker.end() + LENGTH_BYTES], "big")
    end = marker.end() + length
    if length < LENGTH_BYTES or end > len(data):
        raise MalformedImage("cannot be decoded: it is cut short")
    return end
