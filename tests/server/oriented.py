"""Pictures that say how they are to be turned, in ways that browsers follow, and in ways that they ignore."""

import struct

from PIL import Image

from tests.server.uploads import SIZE, after_header, chunk, encode


def corners(size: tuple[int, int] = SIZE) -> Image.Image:
    """Greys of 0, 60, 120 and 180 in the quadrants."""
    image = Image.new("RGB", size)
    half = size[0] // 2, size[1] // 2
    for number, place in enumerate(((0, 0), (half[0], 0), (0, half[1]), half)):
        image.paste((60 * number,) * 3, (*place, place[0] + half[0], place[1] + half[1]))
    return image


def tiff(orientation: int, *, order: str = "MM", kind: int = 3, count: int = 1) -> bytes:
    end = ">" if order == "MM" else "<"
    value = struct.pack(f"{end}HH", orientation, 0) if kind == 3 else struct.pack(f"{end}I", orientation)
    entry = struct.pack(f"{end}HHI", 0x0112, kind, count) + value
    return order.encode() + struct.pack(f"{end}HIH", 42, 8, 1) + entry + bytes(4)


def exif(jpeg: bytes, *blocks: bytes) -> bytes:
    segments = (b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block for block in blocks)
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


# Of the quadrants top left, top right and bottom left as they are shown, by orientation: which one it was as stored.
CORNERS = {
    1: (0, 1, 2),
    2: (1, 0, 3),
    3: (3, 2, 1),
    4: (2, 3, 0),
    5: (0, 2, 1),
    6: (2, 0, 3),
    7: (3, 1, 2),
    8: (1, 3, 0),
}
XMP = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'


def oriented() -> dict[str, tuple[bytes, int]]:
    """By name: a file of `corners()`, and the orientation that a browser shows it in."""
    png, jpeg = encode(corners()), encode(corners(), "JPEG", quality=95)
    files = {
        "0": (after_header(png, chunk(b"eXIf", tiff(0))), 1),
        "9": (after_header(png, chunk(b"eXIf", tiff(9))), 1),
        "a LONG": (after_header(png, chunk(b"eXIf", tiff(3, order="II", kind=4))), 1),
        "two values": (after_header(png, chunk(b"eXIf", tiff(3, count=2))), 1),
        "behind the pixels": (png[:-12] + chunk(b"eXIf", tiff(3)) + png[-12:], 1),
        "malformed": (after_header(png, chunk(b"eXIf", b"not a tiff header")), 1),
        "empty": (after_header(png, chunk(b"eXIf", b"")), 1),
        "with the prefix of JPEG": (after_header(png, chunk(b"eXIf", b"Exif\0\0" + tiff(3))), 1),
        "a good chunk behind a bad one": (after_header(png, chunk(b"eXIf", b"junk"), chunk(b"eXIf", tiff(3))), 1),
        "the first of two chunks": (after_header(png, chunk(b"eXIf", tiff(3)), chunk(b"eXIf", tiff(2))), 3),
        "a good segment behind a bad one": (exif(jpeg, b"junk", tiff(3)), 1),
        "the first of two segments": (exif(jpeg, tiff(3), tiff(2)), 3),
        "cut short": (exif(jpeg, tiff(3)[:20]), 1),
        "cut short behind the value": (after_header(png, chunk(b"eXIf", tiff(3)[:-4])), 3),
        "EXIF in WebP": (encode(corners(), "WEBP", lossless=True, exif=b"Exif\0\0" + tiff(3)), 1),
        "XMP in WebP": (encode(corners(), "WEBP", lossless=True, xmp=XMP), 1),
        "XMP in PNG": (after_header(png, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)), 1),
        "XMP in JPEG": (encode(corners(), "JPEG", quality=95, xmp=XMP), 1),
    }
    for orientation in CORNERS:
        image = corners((16, 20) if orientation > 4 else SIZE)
        block = tiff(orientation, order="II")
        files[f"PNG {orientation}"] = after_header(encode(image), chunk(b"eXIf", tiff(orientation))), orientation
        files[f"JPEG {orientation}"] = exif(encode(image, "JPEG", quality=95), block), orientation
    phone = encode(corners((16, 20)), "MPO", save_all=True, append_images=[corners()], exif=b"Exif\0\0" + tiff(6))
    return {**files, "of a phone": (phone, 6)}
