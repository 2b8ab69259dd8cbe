"""Reads the description of an image file of any kind that is taken: PNG, JPEG, WebP."""

from server.api.image_files import jpeg, png, webp
from server.api.image_files.image_file import ImageFile, MalformedImage

HEAD_BYTES = 32


def read_image_file(data: bytes) -> ImageFile:
    """Raises MalformedImage. Decodes no pixel; takes a few milliseconds at most."""
    if data.startswith(png.MAGIC):
        return png.read_png(data)
    if data.startswith(jpeg.MAGIC):
        return jpeg.read_jpeg(data)
    if data.startswith(webp.MAGIC) and data[8:12] == webp.FORM:
        return webp.read_webp(data)
    raise MalformedImage("is empty" if not data else f"is no PNG, WebP or JPEG{_looks_like(data[:HEAD_BYTES])}")


def _looks_like(head: bytes) -> str:
    """Names what it is instead, for the kinds that people send most."""
    names = {
        b"GIF8": "a GIF",
        b"BM": "a BMP",
        b"II*\0": "a TIFF",
        b"MM\0*": "a TIFF",
        b"<svg": "an SVG",
        b"%PDF": "a PDF",
    }
    brands = {b"avif": "an AVIF", b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIC"}
    found = next((name for magic, name in names.items() if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        found = brands.get(head[8:12])
    return "" if found is None else f": it is {found}"
