"""Bodies that are cheap to send and dear to refuse, in any size."""

from collections.abc import Mapping

BOUNDARY = b"x"
FORM_TYPE = "multipart/form-data; boundary=x"
PNG = b"\x89PNG\r\n\x1a\n"


def filled(before: bytes, unit: bytes, after: bytes, size: int) -> bytes:
    """About `size` bytes, and no more: `unit` as often as it fits between the others."""
    return before + unit * ((size - len(before) - len(after)) // len(unit)) + after


def with_keys(size: int) -> bytes:
    """An object with as many different keys as fit."""
    count = size // len(b',"k1234567":1') - 2
    return b'{"prompt":"x"' + b"".join(b',"k%07d":1' % index for index in range(count)) + b"}"


def json_bodies(size: int) -> Mapping[str, bytes]:
    emoji = "😀".encode()
    order, image = b'{"prompt":"x","order":[', b'{"prompt":"x","image":"'
    url = image + b"data:;base64,"
    return {
        "empty texts": filled(order, b'"",', b'""]}', size),
        "nulls": filled(order, b"null,", b"1]}", size),
        "numbers": filled(order, b"1,", b"1]}", size),
        "objects": filled(order, b"{},", b"1]}", size),
        "lists": filled(order, b"[],", b"1]}", size),
        "pairs of shares": filled(b'{"prompt":"x","guidance_interval":[', b"2,", b"2]}", size),
        "unknown keys": with_keys(size),
        "deep lists": b"[" * size,
        "deep objects": b'{"a":' * (size // 5),
        "deep and closed": b"[" * (size // 2) + b"]" * (size // 2),
        "deep within a field": filled(b'{"prompt":"x","order":', b"[", b"", size),
        "a long text": filled(b'{"prompt":"', b"x", b'"}', size),
        "a long name": filled(b'{"prompt":"x","order":"', b"x", b'"}', size),
        "a long picture": filled(image, b"A", b'"}', size),
        "an escaped picture": filled(url, b"%41", b'"}', size),
        "a partly escaped picture": filled(url, b"%2B" + b"A" * 17, b'"}', size),
        "percent signs": filled(url, b"%", b'"}', size),
        "wide characters": filled(image, emoji, b'"}', size),
        "escapes": filled(image, b"\\u0041", b'"}', size),
        "wide escapes": filled(image, b"\\ud83d\\ude00", b'"}', size),
        "a long key": filled(b'{"prompt":"x","', b"k", b'":1}', size),
        "a wide key": filled(b'{"prompt":"x","', emoji, b'":1}', size),
        "a long number": filled(b'{"prompt":"x","seed":1', b"0", b"}", size),
        "a long number for a share": filled(b'{"prompt":"x","top_p":1', b"0", b"}", size),
        "a long exponent": filled(b'{"prompt":"x","steps":1e', b"0", b"}", size),
        "no JSON": b"x" * size,
        "no UTF-8": b"\xff" * size,
    }


def form(*parts: bytes) -> bytes:
    return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + b"--x--\r\n"


def text(name: bytes, value: bytes) -> bytes:
    return b'content-disposition: form-data; name="' + name + b'"\r\n\r\n' + value


def file(value: bytes, *headers: bytes) -> bytes:
    head = b"\r\n".join((b'content-disposition: form-data; name="image"; filename="a"', *headers))
    return head + b"\r\n\r\n" + value


def form_bodies(size: int) -> Mapping[str, bytes]:
    inner = size - 200  # room for the parts' heads
    return {
        "many fields": form(*(text(b"f%06d" % index, b"1") for index in range(size // 64))),
        "many positions": form(*[text(b"order[]", b"1")] * (size // 65)),
        "many files": form(*[file(b"")] * (size // 70)),
        "the same field": form(*[text(b"prompt", b"x")] * (size // 64)),
        "a field of texts": form(text(b"order", filled(b"[", b'"",', b'""]', inner))),
        "a field of brackets": form(text(b"order", b"[" * inner)),
        "a long field": form(text(b"prompt", b"x" * inner)),
        "a long name": form(text(b"n" * inner, b"1")),
        "many headers": form(b"a:b\r\n" * (inner // 5)),
        "a long header": form(filled(b"a:", b"b", b"\r\n\r\n", inner)),
        "semicolons in names": form(*[b'content-disposition: form-data; name=a; b="' + b";" * 900] * (size // 960)),
        "near boundaries": form(file(b"\r\n--xy" * (inner // 6))),
        "newlines": form(file(b"\r\n" * (inner // 2))),
        "returns": form(file(b"\r" * inner)),
        "base64": form(file(b"AAAA" * (inner // 4), b"content-transfer-encoding: base64")),
        "quoted": form(file(b"=41" * (inner // 3), b"content-transfer-encoding: quoted-printable")),
        "magic": form(file(PNG * (inner // len(PNG)))),
        "no end": form(file(b"x" * inner)).removesuffix(b"--x--\r\n"),
        "no beginning": b"\r\n" * (size // 2),
    }
