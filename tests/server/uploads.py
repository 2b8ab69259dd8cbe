"""Pictures and masks to send: good ones, and every kind of broken one."""

import io
import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

SIZE = (20, 16)  # of the tiny model: width, height
BOX = (5, 6, 13, 14)  # left, top, right, bottom of the hole in `mask()`


def picture(size: tuple[int, int] = SIZE, mode: str = "RGB", seed: int = 0) -> Image.Image:
    noise = random.Random(seed).randbytes(size[0] * size[1] * 3)
    return Image.frombytes("RGB", size, noise).convert(mode)


def mask(size: tuple[int, int] = SIZE, box: tuple[int, int, int, int] = BOX) -> Image.Image:
    image = Image.new("RGBA", size, (9, 9, 9, 255))
    image.paste((9, 9, 9, 0), box)
    return image


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def bomb(side: int = 50_000) -> bytes:
    """A PNG of a few kilobytes that decodes to gigabytes."""
    rows = zlib.compress(bytes(1 << 22), 9)
    return png_header(side, side) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def webp_bomb() -> bytes:
    """A header that names 16384 x 16384 pixels."""
    side = (16383).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + side + side
    return b"RIFF" + struct.pack("<I", len(body)) + body


def text_bomb() -> bytes:
    """A tiny picture with megabytes of compressed text."""
    text = b"Comment\0\0" + zlib.compress(bytes(30 << 20), 9)
    whole = encode(picture())
    return after_header(whole, chunk(b"zTXt", text))


def after_header(png: bytes, *chunks: bytes) -> bytes:
    return png[:33] + b"".join(chunks) + png[33:]


def png_16_bits(*chunks: bytes) -> bytes:
    """All samples are 0x8040."""
    rows = (b"\0" + b"\x80\x40" * 3 * SIZE[0]) * SIZE[1]
    return b"".join((png_header(*SIZE, depth=16), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")))


def progressive(size: tuple[int, int], num_scans: int) -> bytes:
    """A JPEG whose last scan is repeated: little to send, and each scan costs as much as all pixels."""
    jpeg = encode(Image.new("RGB", size, (90, 90, 90)), "JPEG", progressive=True)
    head, *scans = jpeg.split(b"\xff\xda")
    last = scans.pop().removesuffix(b"\xff\xd9")
    scans += [last] * (num_scans - len(scans))
    return head + b"".join(b"\xff\xda" + scan for scan in scans) + b"\xff\xd9"


def many_segments() -> bytes:
    """A JPEG behind a megabyte of empty comments."""
    jpeg = encode(picture(), "JPEG")
    return jpeg[:2] + b"\xff\xfe\0\2" * (1 << 18) + jpeg[2:]


def many_scans() -> bytes:
    """A progressive JPEG whose first scan is repeated: little to send, much to decode."""
    jpeg = encode(picture((64, 64)), "JPEG", progressive=True)
    start = jpeg.index(b"\xff\xda")
    end = jpeg.index(b"\xff\xc4", start) if b"\xff\xc4" in jpeg[start:] else jpeg.index(b"\xff\xda", start + 2)
    return jpeg[:start] + jpeg[start:end] * 2000 + jpeg[end:]


def animated(kind: str) -> bytes:
    return encode(picture(seed=1), kind, save_all=True, append_images=[picture(seed=2)])


def refused() -> dict[str, bytes]:
    """Pictures that no edit may start from, by what is wrong with them."""
    return {
        "empty": b"",
        "text": b"no picture at all",
        "html": b"<html><svg/></html>",
        "gif": encode(picture(), "GIF"),
        "bmp": encode(picture(), "BMP"),
        "tiff": encode(picture(), "TIFF"),
        "magic only": b"\x89PNG\r\n\x1a\n",
        "jpeg magic only": b"\xff\xd8\xff",
        "riff that is no webp": b"RIFF\0\0\0\0WAVEfmt ",
        "png bomb": bomb(),
        "png of no size": png_header(0, 0) + chunk(b"IEND", b""),
        "png without pixels": png_header(20, 16) + chunk(b"IEND", b""),
        "webp bomb": webp_bomb(),
        "too many scans": many_scans(),
        "animated png": animated("PNG"),
        "animated webp": animated("WEBP"),
        "16 bit transparent colour": png_16_bits(chunk(b"tRNS", bytes(6))),
        "two sizes": png_header(20, 16) + png_header(9000, 9000)[8:] + encode(picture())[33:],
        "too many chunks": after_header(encode(picture()), chunk(b"tEXt", b"") * (1 << 14)),
        "too many segments": many_segments(),
        "too wide": encode(picture((21, 16))),
        "too small": encode(picture((10, 8))),
        "turned": encode(picture((16, 20))),
        "half": encode(picture())[:400],
        "half a jpeg": encode(picture(), "JPEG")[:300],
        "half a webp": encode(picture(), "WEBP", lossless=True)[:300],
    }  # fmt: skip


def taken() -> dict[str, bytes]:
    """Pictures of every kind that can be edited."""
    turned = Image.Exif()
    turned[0x0112] = 6  # lies on its side; upright it has the model's size
    return {
        "png": encode(picture()),
        "jpeg": encode(picture(), "JPEG"),
        "webp": encode(picture(), "WEBP"),
        "grey": encode(picture(mode="L")),
        "bits": encode(picture(mode="1")),
        "grey with alpha": encode(picture(mode="LA")),
        "palette": encode(picture(mode="P")),
        "opaque alpha": encode(picture(mode="RGBA")),
        "turned by exif": encode(picture((16, 20)), "JPEG", exif=turned),
        "cmyk": encode(picture(mode="CMYK"), "JPEG"),
        "16 bit grey": encode(Image.new("I;16", SIZE, 70), "PNG"),
        "16 bit colours": png_16_bits(),
        "phone": encode(picture(), "MPO", save_all=True, append_images=[picture((5, 4))]),
        "malformed exif": after_header(encode(picture()), chunk(b"eXIf", b"not a tiff header")),
        "malformed profile": after_header(encode(picture()), chunk(b"iCCP", b"x")),
        "compressed text": text_bomb(),
        "trailing bytes": encode(picture()) + b"junk",
    }


def broken(count: int, seed: int) -> Iterator[bytes]:
    """Good pictures that were cut short, flipped, lengthened, or joined in the middle."""
    chance = random.Random(seed)
    good = [
        *taken().values(),
        encode(mask()),
        animated("PNG"),
        encode(picture(mode="CMYK"), "JPEG"),
        text_bomb()[:20_000],
    ]
    for _ in range(count):
        data = bytearray(chance.choice(good))
        match chance.randrange(5):
            case 0:
                del data[chance.randrange(len(data)) :]
            case 1:
                for _ in range(chance.randint(1, 8)):
                    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            case 2:
                start = chance.randrange(len(data))
                data[start : start + chance.randint(1, 64)] = chance.randbytes(chance.randint(0, 64))
            case 3:
                other = chance.choice(good)
                data[chance.randrange(len(data)) :] = other[chance.randrange(len(other)) :]
            case _:
                # The size in the header, or what looks like it.
                at = chance.randint(12, 40)
                data[at : at + 4] = chance.randbytes(4)
        yield bytes(data)
