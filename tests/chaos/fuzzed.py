"""Requests that nobody should send, of every kind, the same for the same seed."""

import base64
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.server.uploads import broken, encode, mask, picture

GOOD = {
    "/v1/generations": {
        "prompt": "a red circle",
        "model": "tiny",
        "n": 1,
        "seed": 3,
        "steps": 1,
        "order": "random",
        "group_sizes": "cosine",
        "entropy_bound": 2.0,
        "candidates": 2,
        "guidance": 1.0,
        "temperature": 1.0,
        "top_k": 5,
        "top_p": 0.9,
        "priority": "low",
        "deadline": 60,
        "previews": False,
    },
    "/v1/images/generations": {
        "prompt": "a red circle",
        "model": "tiny",
        "n": 1,
        "size": "20x16",
        "response_format": "b64_json",
        "output_format": "png",
        "stream": False,
        "partial_images": 0,
        "steps": 1,
        "user": "somebody",
    },
}
EDIT = {"prompt": "a red circle", "steps": 1, "strength": 1.0, "feather": 2, "offset": [4, 0]}
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1 << 63,
    -(1 << 200),
    10**400,
    1e308,
    -0.0,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\0",
    "\ud800",
    "\u202e\U0001f642" * 9,
    "a" * 100_000,
    "../../etc/passwd",
    "%s%n{0}${x}",
    "'; drop table jobs; --",
    "1e9",
    [],
    {},
    [[]],
    [0] * 5000,
    list(range(20)),
    [*range(20), 3],
    [1.5, "x", None],
    {"a": {"b": {"c": []}}},
    {"": 0, "prompt": "x"},
)
IDS = ("", "0", "..", "%00", "a" * 3000, "ü", "*", "job:1", "{id}", "../ready", "\u2028")
HEADERS = {
    "Idempotency-Key": ("", "k", "x y", "x" * 5000, "ü", "a,b", '"'),
    "Cancel-After": ("", "0", "-1", "1e400", "nan", "x", "9" * 400),
    "Prefer": ("wait", "wait=", "wait=-1", "wait=0", "wait=nan", "wait=9" * 50, "respond-async, wait=0; x"),
    "Last-Event-ID": ("", "-1", "x", "9" * 400, "1.5"),
    "Content-Type": (
        "",
        "text/plain",
        "application/json; charset=utf-7",
        "multipart/form-data",
        "multipart/x;boundary=",
    ),
    "Content-Encoding": ("gzip", "br", "x"),
    "Range": ("bytes=0-", "bytes=-1", "x"),
    "If-None-Match": ("*", "x", '"' * 99),
    "Accept": ("", "x/y;q=nan", "text/event-stream"),
    "Origin": ("null", "http://", "http://a" * 99),
    "Authorization": ("", "Bearer", "Bearer " + "x" * 5000, "Basic eA=="),
    "traceparent": ("x", "00-" + "0" * 32 + "-" + "0" * 16 + "-00", "ff" * 200),
}
TAILS = ("", "/", "/images/0", "/images/-1", "/images/9" * 9, "/images/0/painting", "/events", "/x")
QUERIES = ("", "?after=-1", "?after=x", "?after=" + "9" * 400, "?format=x&size=0", "?size=99999999", "?\0")
PATHS = (*GOOD, "/v1/edits", "/v1/models", "/live", "/ready", "/metrics", "/")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND")


@dataclass(frozen=True)
class FuzzedRequest:
    kind: str
    method: str
    url: str
    content: bytes = b""
    headers: dict[str, bytes] = field(default_factory=dict)


def fuzzed(count: int, seed: int, job_id: str) -> Iterator[FuzzedRequest]:
    """`job_id` is one that exists."""
    chance = random.Random(seed)
    pictures = broken(count, seed)
    kinds = (_fields, _bytes, _edit, _form, _path, _method, _header)
    for _ in range(count):
        made = chance.choice(kinds)
        yield _edit(chance, next(pictures)) if made is _edit else made(chance, job_id.encode())


def _fields(chance: random.Random, _: bytes) -> FuzzedRequest:
    """Some fields of a good request become something else."""
    url, good = chance.choice(list(GOOD.items()))
    body: dict[str, Any] = dict(good)
    for name in chance.sample(list(body), chance.randint(1, 3)):
        body[name] = chance.choice(HOSTILE)
    if chance.random() < 0.1:
        body[chance.choice(("", "x", "\0", "__class__", "prompt ", "a" * 9000))] = chance.choice(HOSTILE)
    return _json("fields", url, body)


def _bytes(chance: random.Random, _: bytes) -> FuzzedRequest:
    """A good request, damaged on its way."""
    url, good = chance.choice(list(GOOD.items()))
    return FuzzedRequest("bytes", "POST", url, _damaged(chance, json.dumps(good).encode()), _JSON)


def _edit(chance: random.Random, data: bytes) -> FuzzedRequest:
    """A broken picture or a broken mask, in JSON or as a form."""
    image, hole = (data, encode(mask())) if chance.random() < 0.5 else (encode(picture()), data)
    fields: dict[str, Any] = dict(EDIT)
    fields[chance.choice(list(fields))] = chance.choice(HOSTILE)
    if chance.random() < 0.5:
        encoded = {"image": base64.b64encode(image).decode(), "mask": base64.b64encode(hole).decode()}
        return _json("edit", "/v1/edits", fields | encoded)
    url = chance.choice(("/v1/edits", "/v1/images/edits"))
    texts = {name: json.dumps(value) for name, value in fields.items()}
    return _multipart("edit", url, texts, image, hole)


def _form(chance: random.Random, _: bytes) -> FuzzedRequest:
    """A form whose own lines are damaged, not the pictures in it."""
    url = chance.choice(("/v1/edits", "/v1/images/edits"))
    good = _multipart("form", url, {"prompt": "x", "steps": "1"}, encode(picture()), encode(mask()))
    return FuzzedRequest("form", "POST", url, _damaged(chance, good.content), good.headers)


def _path(chance: random.Random, known: bytes) -> FuzzedRequest:
    job = chance.choice((*IDS, known.decode(), known.decode()))
    tail, query = chance.choice(TAILS), chance.choice(QUERIES)
    path = chance.choice(
        (f"/v1/generations/{job}{tail}{query}", f"/v1/models/{job}", f"/{job}{tail}", f"/studio/{job}")
    )
    return FuzzedRequest("path", chance.choice(("GET", "GET", "HEAD")), path)


def _method(chance: random.Random, known: bytes) -> FuzzedRequest:
    path = chance.choice((*PATHS, f"/v1/generations/{known.decode()}"))
    return FuzzedRequest("method", chance.choice(METHODS), path, chance.randbytes(chance.randint(0, 99)))


def _header(chance: random.Random, known: bytes) -> FuzzedRequest:
    headers = dict(_JSON)
    for name in chance.sample(list(HEADERS), chance.randint(1, 3)):
        headers[name] = chance.choice(HEADERS[name]).encode()
    if chance.random() < 0.5:
        url = f"/v1/generations/{known.decode()}{chance.choice(('', '/images/0', '/events'))}"
        return FuzzedRequest("header", "GET", url, headers=headers)
    url, good = chance.choice(list(GOOD.items()))
    return FuzzedRequest("header", "POST", url, json.dumps(good).encode(), headers)


_JSON = {"Content-Type": b"application/json"}


def _json(kind: str, url: str, body: dict[str, Any]) -> FuzzedRequest:
    return FuzzedRequest(kind, "POST", url, json.dumps(body).encode(), _JSON)


def _multipart(kind: str, url: str, fields: dict[str, str], image: bytes, hole: bytes) -> FuzzedRequest:
    request = httpx.Request("POST", "http://x", data=fields, files={"image": image, "mask": hole})
    return FuzzedRequest(kind, "POST", url, request.read(), {"Content-Type": request.headers["content-type"].encode()})


def _damaged(chance: random.Random, body: bytes) -> bytes:
    data = bytearray(body)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data))
        data[at : at + chance.randint(0, 9)] = chance.randbytes(chance.randint(0, 9))
    return bytes(data)
