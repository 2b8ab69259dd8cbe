"""Pages of other sites: what a browser would send for them is refused, by whatever name they call this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from oar_wire.model import ModelInfo, WorkerInfo
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.store import Registry
from server.settings import Settings
from tests.server.api_thread import ApiThread
from tests.server.tenants import bearer, write_keys
from tests.waiting import HANG_SECONDS

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("_model")]

BODY = {"prompt": "a red circle"}
FRIEND, STRANGER = "https://friend.example", "https://stranger.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,idempotency-key"}


@pytest.fixture
async def _model(connection: RedisConnection, model_info: ModelInfo) -> None:
    await Registry(connection).publish_models([model_info], {}, 600)
    await Registry(connection).workers.beat(WorkerInfo(name="w", models=("tiny",), slots=4), 600)


@pytest.fixture(scope="module")
def url(redis_server: EmbeddedRedis) -> Iterator[str]:
    """Of a local server as it is by default: no keys, no other origins."""
    with ApiThread(Settings(redis_url=redis_server.url, registry_seconds=0)) as url:
        yield url


@pytest.fixture(scope="module")
def friendly(redis_server: EmbeddedRedis) -> Iterator[str]:
    settings = Settings(redis_url=redis_server.url, registry_seconds=0, allowed_origins=(FRIEND, "null"))
    with ApiThread(settings) as url:
        yield url


async def submit(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
        return await client.post("/v1/generations", json=BODY, headers=headers)


async def handshake(url: str, **options: Any) -> int:
    """The status of opening a websocket; 101 is success."""
    job = (await submit(url)).json()
    try:
        async with connect(f"{url.replace('http', 'ws')}{job['stream_url']}", open_timeout=HANG_SECONDS, **options):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def port(url: str) -> int:
    return httpx.URL(url).port or 80


async def test_a_client_without_an_origin_is_no_browser(url: str) -> None:
    assert (await submit(url)).status_code == 202
    assert await handshake(url) == 101


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "studio.localhost", "[::1]"])
async def test_the_servers_own_page_may_use_it(url: str, name: str) -> None:
    host = f"{name}:{port(url)}"
    assert (await submit(url, Host=host, Origin=f"http://{host.lower()}")).status_code == 202


@pytest.mark.parametrize(
    "origin", [STRANGER, "null", "http://localhost:1", "http://127.0.0.1", "file://", "", "http://localhost:99999999"]
)
async def test_another_page_may_not(url: str, origin: str) -> None:
    """A page can post a form anywhere without asking first, and open a websocket and read it."""
    refused = await submit(url, Origin=origin)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_not_allowed")
    async with httpx.AsyncClient(base_url=url) as client:
        form = await client.post("/v1/images/edits", files={"image": b"x"}, headers={"Origin": origin})
        assert (form.status_code, form.json()["error"]["code"]) == (403, "origin_not_allowed")
        preflight = await client.options("/v1/generations", headers={"Origin": origin, **PREFLIGHT})
        assert (preflight.status_code, "access-control-allow-origin" in preflight.headers) == (403, False)
    assert await handshake(url, additional_headers={"Origin": origin}) == 403


async def test_a_name_that_was_bound_anew_to_this_machine_is_refused(url: str) -> None:
    """DNS rebinding: the page's own name has become 127.0.0.1, so that for the browser all is one origin."""
    host = f"stranger.example:{port(url)}"
    refused = await submit(url, Host=host, Origin=f"http://{host}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (421, "host_not_allowed")
    async with httpx.AsyncClient(base_url=url) as client:
        for path in ("/v1/models", "/live", "/metrics", "/"):
            assert (await client.get(path, headers={"Host": host})).status_code == 421, (
                "a browser reads of its own origin"
            )
    for foreign in ("localhost.stranger.example", "127.0.0.1.stranger.example", "", "a b", "[::1"):
        assert (await submit(url, Host=foreign)).status_code in {400, 421}
    with pytest.raises(InvalidStatus) as caught:
        async with connect(
            f"{url.replace('http', 'ws')}/v1/generations/gen-0/stream", additional_headers={"Host": host}
        ):
            pass
    assert caught.value.response.status_code in {400, 421}


async def test_pages_of_the_listed_origins_may_use_it(friendly: str) -> None:
    async with httpx.AsyncClient(base_url=friendly) as client:
        for origin in (FRIEND, "null"):
            preflight = await client.options("/v1/generations", headers={"Origin": origin, **PREFLIGHT})
            assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, origin)
            assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
        answer = await client.post("/v1/generations", json=BODY, headers={"Origin": FRIEND})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (202, FRIEND)
        assert "retry-after" in answer.headers["access-control-expose-headers"].lower()
        bad = await client.post("/v1/generations", json={}, headers={"Origin": FRIEND})
        assert (bad.status_code, bad.headers["access-control-allow-origin"]) == (422, FRIEND), "errors are read, too"
        for path in ("/v1/generations", "/v1/edits"):
            assert (await client.options(path, headers={"Origin": STRANGER, **PREFLIGHT})).status_code == 403
    assert await handshake(friendly, additional_headers={"Origin": FRIEND}) == 101
    assert await handshake(friendly, additional_headers={"Origin": STRANGER}) == 403


async def test_a_proxy_may_keep_the_name_that_its_clients_use(friendly: str) -> None:
    """It speaks TLS and passes the `Host` on: the scheme differs, host and port agree."""
    assert (await submit(friendly, Host="friend.example", Origin=FRIEND)).status_code == 202
    assert (await submit(friendly, Host="friend.example:443", Origin=FRIEND)).status_code == 202
    assert (await submit(friendly, Host="stranger.example", Origin=FRIEND)).status_code == 421


async def test_a_star_lets_every_page_in(redis_server: EmbeddedRedis) -> None:
    settings = Settings(redis_url=redis_server.url, registry_seconds=0, allowed_origins=("*",))
    with ApiThread(settings) as url:
        answer = await submit(url, Host="stranger.example", Origin=STRANGER)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (202, "*")
        assert await handshake(url, additional_headers={"Origin": STRANGER}) == 101


async def test_beyond_loopback_any_name_may_be_the_servers(redis_server: EmbeddedRedis) -> None:
    with ApiThread(Settings(redis_url=redis_server.url, registry_seconds=0, host="0.0.0.0")) as url:
        assert (await submit(url, Host="oar-api")).status_code == 202
        assert (await submit(url, Host="oar-api", Origin="http://oar-api")).status_code == 202
        assert (await submit(url, Host="oar-api", Origin=STRANGER)).status_code == 403


async def test_a_preflight_needs_no_key_and_what_follows_does(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    """Browsers send no key with it; a refusal has to be readable by the page."""
    keys = write_keys(tmp_path)
    settings = Settings(redis_url=redis_server.url, api_keys=keys.path, allowed_origins=(FRIEND,), registry_seconds=0)
    with ApiThread(settings) as url:
        async with httpx.AsyncClient(base_url=url, headers={"Origin": FRIEND}) as client:
            assert (await client.options("/v1/generations", headers=PREFLIGHT)).status_code == 200
            refused = await client.post("/v1/generations", json=BODY)
            assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, FRIEND)
            assert (await client.post("/v1/generations", json=BODY, headers=bearer(keys.one))).status_code == 202


async def test_refusals_are_counted(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        await submit(url, Origin=STRANGER)
        assert 'oar_refused_total{code="origin_not_allowed"}' in (await client.get("/metrics")).text
