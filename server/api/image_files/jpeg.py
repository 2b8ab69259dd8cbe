"""JPEG: segments behind markers, and the compressed pixels behind each start of a scan."""

import re

from server.api.image_files.exif import orientation
from server.api.image_files.image_file import MAX_PARTS, ImageFile, MalformedImage

MAGIC = b"\xff\xd8\xff"
# Neither a byte that is stuffed into compressed pixels, nor a restart, nor a fill byte.
MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
START, END, SCAN, ALONE = 0xD8, 0xD9, 0xDA, 0x01
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
TABLES = {0xC4, 0xCC, 0xDB, 0xDD}
JFIF, EXIF, ADOBE = 0xE0, 0xE1, 0xEE  # JFIF and Adobe say what the colours are
EXIF_HEAD = b"Exif\0"


def read_jpeg(data: bytes) -> ImageFile:
    """The first picture of the file, as phones put several into one. Raises MalformedImage."""
    size: tuple[int, int] | None = None
    exif: bytes | None = None
    num_scans = 0
    kept = [data[:2]]
    marker = MARKER.search(data, 2)
    for _ in range(MAX_PARTS):
        if marker is None:
            break
        code = marker[1][0]
        if code in {START, END, ALONE}:
            kept.append(b"" if code == ALONE else marker[0])
            if code == END:
                break
            marker = MARKER.search(data, marker.end())
            continue
        end = _segment_end(data, marker)
        following = MARKER.search(data, end)
        body = data[marker.end() + 2 : end]
        if code in FRAMES and size is None:
            size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
        if code == EXIF and exif is None and body.startswith(EXIF_HEAD):
            exif = body[6:]
        num_scans += code == SCAN
        if code == SCAN:
            kept.append(data[marker.start() : following.start() if following else len(data)])
        elif code in FRAMES or code in TABLES or code in {JFIF, ADOBE}:
            kept.append(data[marker.start() : end])
        marker = following
    else:
        raise MalformedImage(f"has more than {MAX_PARTS} segments")
    if size is None or not num_scans:
        raise MalformedImage("cannot be decoded: it is cut short")
    return ImageFile("JPEG", size, b"".join(kept), 1 if exif is None else orientation(exif), num_scans)


def _segment_end(data: bytes, marker: re.Match[bytes]) -> int:
    """Raises MalformedImage."""
    length = int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    end = marker.end() + length
    if length < 2 or end > len(data):
        raise MalformedImage("cannot be decoded: it is cut short")
    return end
