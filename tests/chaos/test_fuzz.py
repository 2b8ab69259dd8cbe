"""Thousands of broken requests, sockets and lines: each is answered, none with a 5xx, and the server is as before."""

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.chaos.fuzzed import HOSTILE, FuzzedRequest, fuzzed
from tests.chaos.harness import Api, House, dice, percentile, scaled

pytestmark = pytest.mark.anyio

AT_ONCE = 16
BEGINNINGS = (
    b"",
    b"GET / HTTP/1.1\r\n",
    b"POST /v1/generations HTTP/1.1\r\nHost: x\r\nContent-Length: ",
    b"\x16\x03\x01",
)
PRINTABLE = "".join(map(chr, range(33, 127)))
HANG_SECONDS = 30.0


async def ask(client: httpx.AsyncClient, request: FuzzedRequest) -> int:
    """The status; httpx refuses to send some of them as they are, so that the target goes out raw."""
    target = request.url.encode("utf-8", "surrogatepass")
    url = client.base_url.copy_with(raw_path=b"/")
    headers = [(name.encode(), value) for name, value in request.headers.items()]
    sent = client.build_request(request.method, url, content=request.content, headers=headers)
    sent.extensions["target"] = quote(target, safe=PRINTABLE).encode()
    return (await client.send(sent)).status_code


async def lines(api: Api, count: int, seed: int) -> int:
    """Bytes that are no HTTP, or only the beginning of it; each connection is answered or closed. Returns how many."""
    chance, ended = dice(seed), 0
    host, port = api.url.removeprefix("http://").split(":")
    for _ in range(count):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(chance.choice(BEGINNINGS) + chance.randbytes(chance.randint(1, 400)) + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            writer.write_eof()
            await asyncio.wait_for(reader.read(), HANG_SECONDS)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended += 1
    return ended


async def sockets(api: Api, job_id: str, count: int, seed: int) -> Counter[int]:
    """Broken handshakes, and streams whose client talks nonsense; how each was closed."""
    chance, codes = dice(seed), Counter[int]()
    for _ in range(count):
        after = chance.choice(("0", "-1", "x", "9" * 300, "", "1&after=2"))
        name = chance.choice((job_id, job_id, "nobody", "%00", "a" * 999))
        url = f"{api.url.replace('http', 'ws')}/v1/generations/{name}/stream?after={after}"
        try:
            async with asyncio.timeout(HANG_SECONDS), connect(url, max_size=None) as socket:
                with contextlib.suppress(ConnectionClosed):
                    for _ in range(chance.randint(0, 4)):
                        await socket.send(
                            chance.choice((chance.randbytes(99), "{", "\0" * 999, json.dumps(HOSTILE[1:9])))
                        )
                    while True:
                        await socket.recv()
                codes[socket.close_code or 0] += 1
        except InvalidHandshake as error:
            codes[getattr(getattr(error, "response", None), "status_code", 0)] += 1
    return codes


async def test_ten_thousand_broken_requests(house: House, figures: dict[str, Any]) -> None:
    count = scaled(10_000, 500)
    house.worker(slots=16)
    await house.model_is_known()
    statuses, seconds, wrong = Counter[int](), list[float](), list[tuple[FuzzedRequest, int]]()
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with house.api(OAR_QUEUE_DEPTH="1000000") as api:
        async with httpx.AsyncClient(base_url=api.url, timeout=HANG_SECONDS, limits=limits) as client:
            accepted = (await client.post("/v1/generations", json={"prompt": "x", "seed": 1})).json()
            await house.end_of(accepted["id"])
            requests = fuzzed(count, 5, accepted["id"])

            async def ask_one_after_another() -> None:
                for request in requests:
                    start = time.perf_counter()
                    status = await ask(client, request)
                    seconds.append(time.perf_counter() - start)
                    statuses[status] += 1
                    if status >= 500:
                        wrong.append((request, status))

            await asyncio.gather(*itertools.starmap(ask_one_after_another, [()] * AT_ONCE))
            ended = await lines(api, scaled(500, 50), seed=6)
            codes = await sockets(api, accepted["id"], scaled(500, 50), seed=7)
            last = (await client.post("/v1/generations", json={"prompt": "x", "seed": 1})).json()
            await house.end_of(last["id"], seconds=600)
        log = api.log.read_text()
    assert await house.pngs(await house.queue.load(last["id"])) == await house.pngs(
        await house.queue.load(accepted["id"])
    )
    figures["fuzz"] = {
        "requests": sum(statuses.values()),
        "statuses": dict(sorted(statuses.items())),
        "status_5xx": len(wrong),
        "slowest_ms": round(1000 * max(seconds)),
        "p99_ms": round(1000 * percentile(seconds, 0.99)),
        "broken_lines": ended,
        "sockets": dict(sorted(codes.items())),
    }
    assert wrong == []
    assert codes.keys() <= {1000, 1003, 1007, 1008, 1009, 4400, 4404, 4422, 403, 404, 400}, codes
    assert "Traceback" not in log
