"""The orientation in a block of EXIF, read as browsers read it: anything malformed means upright.

Pillow is no help here: it raises for malformed blocks, warns about truncated ones, and falls back to XMP, which no
browser reads.
"""

ORIENTATION = 0x0112
SHORT = 3
ENTRY_BYTES = 12
MAX_ENTRIES = 1024


def orientation(tiff: bytes) -> int:
    """1 to 8, from a TIFF header and its first directory; 1 where it says none."""
    if tiff[:4] not in {b"II*\0", b"MM\0*"}:
        return 1
    is_little = tiff[:2] == b"II"

    def number(start: int, length: int) -> int:
        return int.from_bytes(tiff[start : start + length], "little" if is_little else "big")

    directory = number(4, 4)
    for index in range(min(number(directory, 2), MAX_ENTRIES)):
        entry = directory + 2 + index * ENTRY_BYTES
        if entry + ENTRY_BYTES > len(tiff):
            return 1
        if number(entry, 2) == ORIENTATION:
            is_valid = number(entry + 2, 2) == SHORT and number(entry + 4, 4) == 1
            value = number(entry + 8, 2)
            return value if is_valid and 1 <= value <= 8 else 1
    return 1
