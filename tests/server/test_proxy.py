"""What a proxy says counts, if it is one: scheme, host, prefix and client address, from trusted addresses alone."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from click import UsageError
from websockets.asyncio.client import connect

from oar_cli.settings_options import load_settings
from oar_wire.model import ModelInfo, WorkerInfo
from server.api.proxy import TrustedProxies
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.store import Registry
from server.settings import Settings
from tests.server.api_thread import ApiThread
from tests.server.tenants import bearer, write_keys

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("_model")]

BODY = {"prompt": "a red circle"}
SAID = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "pictures.example",
    "X-Forwarded-Prefix": "/oar",
    "X-Forwarded-For": "203.0.113.9",
}
PROXY, STRANGER = "127.0.0.1", "127.0.0.2"


@pytest.fixture
async def _model(connection: RedisConnection, model_info: ModelInfo) -> None:
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 600)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2, step_seconds=0.5), 600)


@pytest.fixture(scope="module")
def url(redis_server: EmbeddedRedis) -> Iterator[str]:
    """Of a server whose only proxy has the address 127.0.0.1."""
    settings = Settings(redis_url=redis_server.url, registry_seconds=0, trusted_proxies=(PROXY,), log_level="debug")
    with ApiThread(settings) as url:
        yield url


def client(url: str, address: str = PROXY, **headers: str) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(local_address=address)
    return httpx.AsyncClient(base_url=url, timeout=10, transport=transport, headers={**SAID, **headers})


async def test_links_are_those_of_the_clients_side(url: str) -> None:
    async with client(url) as through:
        job = await through.post("/v1/generations", json=BODY)
        assert job.headers["Location"] == job.json()["url"]
        assert job.json()["url"].startswith("/oar/v1/generations/")
        redirect = await through.get("/v1/models/")
        assert redirect.headers["Location"] == "https://pictures.example/oar/v1/models"
        document = (await through.get("/asyncapi.json")).json()
        assert document["servers"]["websocket"] == {
            "host": "pictures.example", "protocol": "wss", "pathname": "/oar"
        }  # fmt: skip
        assert (await through.get("/openapi.json")).json()["servers"] == [{"url": "/oar"}]


async def test_a_stranger_is_not_believed(url: str) -> None:
    async with client(url, STRANGER) as stranger:
        job = (await stranger.post("/v1/generations", json=BODY)).json()
        assert job["url"].startswith("/v1/generations/")
        redirect = await stranger.get("/v1/models/")
        assert redirect.headers["Location"] == f"{url}/v1/models"
        assert "servers" not in (await stranger.get("/openapi.json")).json()


async def test_the_origin_is_compared_with_the_name_that_the_browser_knows(url: str) -> None:
    page = {"Origin": "https://pictures.example"}
    async with client(url, **page) as through, client(url, STRANGER, **page) as stranger:
        assert (await through.post("/v1/generations", json=BODY)).status_code == 202
        assert (await stranger.post("/v1/generations", json=BODY)).status_code == 403


async def test_a_rebound_page_cannot_call_itself_by_another_name(url: str) -> None:
    """Its requests come from this machine, whose word counts; the name of the connection is checked before."""
    async with client(url, **{"Host": "stranger.example", "X-Forwarded-Host": "localhost"}) as page:
        for path in ("/v1/models", "/", "/live"):
            refused = await page.get(path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (421, "host_not_allowed")


@pytest.mark.parametrize(
    ("said", "url_begins"),
    [
        ({"X-Forwarded-Prefix": "//evil.example"}, "/v1/"),
        ({"X-Forwarded-Prefix": "/a/../b"}, "/v1/"),
        ({"X-Forwarded-Prefix": "oar"}, "/v1/"),
        ({"X-Forwarded-Prefix": "/v1"}, "/v1/generations/gen-"),
        ({"X-Forwarded-Prefix": '/"><script>'}, "/v1/"),
        ({"X-Forwarded-Prefix": "/"}, "/v1/"),
        ({"X-Forwarded-Prefix": "/a/b/"}, "/a/b/v1/"),
        ({"X-Forwarded-Prefix": "/first, /last"}, "/last/v1/"),
    ],
)
async def test_a_prefix_that_cannot_stand_in_links_is_none(url: str, said: dict[str, str], url_begins: str) -> None:
    async with client(url, **said) as through:
        job = await through.post("/v1/generations", json=BODY)
        assert job.json()["url"].startswith(url_begins), job.json()["url"]


@pytest.mark.parametrize("host", ["evil.example/path", "a b", "user@evil.example", "evil.example:port", ""])
async def test_a_host_that_is_none_is_not_taken(url: str, host: str) -> None:
    async with client(url, **{"X-Forwarded-Host": host}) as through:
        location = (await through.get("/v1/models/")).headers["Location"]
        assert location == f"{url.replace('http', 'https')}/oar/v1/models"


async def test_no_prefix_opens_a_door_that_asks_for_a_key(redis_server: EmbeddedRedis, tmp_path: Any) -> None:
    """What is open is decided by the address that is routed, with its prefix taken off."""
    keys = write_keys(tmp_path)
    settings = Settings(redis_url=redis_server.url, registry_seconds=0, api_keys=keys.path, metrics_key="k" * 16)
    with ApiThread(settings) as url:
        for prefix in ("/live", "/studio", "/docs", "/x", "/openapi.json"):
            async with client(url, **{"X-Forwarded-Prefix": prefix}) as through:
                for path in ("/v1/models", f"{prefix}/v1/models", f"{prefix}{prefix}/v1/models", "/metrics"):
                    answer = await through.get(path)
                    assert answer.status_code in {401, 404}, (prefix, path)
                for path in ("/live", "/", "/docs"):
                    assert (await through.get(path)).status_code == 200, (prefix, path)
        async with client(url, **bearer(keys.one)) as through:
            assert (await through.get("/v1/models")).status_code == 200


async def test_a_websocket_below_a_prefix(url: str) -> None:
    async with client(url) as through:
        job = (await through.post("/v1/generations", json=BODY)).json()
    for path in (job["stream_url"], job["stream_url"].removeprefix("/oar")):
        async with connect(f"{url.replace('http', 'ws')}{path}?after=0", additional_headers=SAID, proxy=None) as socket:
            assert '"queued"' in str(await socket.recv())


async def test_the_clients_address_is_logged(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "server.api.middleware"):
        async with client(url, **{"X-Forwarded-For": "198.51.100.1, 203.0.113.9:4711, 127.0.0.1"}) as through:
            await through.get("/v1/models")
        async with client(url, STRANGER) as stranger:
            await stranger.get("/v1/models")
        while len(lines := [line for line in caplog.messages if "/v1/models 200" in line]) < 2:
            await asyncio.sleep(0.01)
    assert "client=203.0.113.9" in lines[0], "the last that is no proxy of ours; what is before it anybody may write"
    assert f"client={STRANGER}" in lines[1]


@pytest.mark.parametrize(
    ("networks", "host", "is_trusted"),
    [
        (("10.0.0.0/8",), "10.1.2.3", True),
        (("10.0.0.0/8",), "11.1.2.3", False),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", True),
        (("fd00::/8", "192.0.2.1"), "fd00::1", True),
        (("fd00::/8", "192.0.2.1"), "192.0.2.1", True),
        (("fd00::/8", "192.0.2.1"), "192.0.2.2", False),
        (("*",), "192.0.2.2", True),
        (("*",), "not an address", True),
        (("10.0.0.0/8",), "not an address", False),
        ((), "127.0.0.1", False),
    ],
)
async def test_who_is_trusted(networks: tuple[str, ...], host: str, is_trusted: bool) -> None:
    assert TrustedProxies(networks).has(host) is is_trusted


@pytest.mark.parametrize(
    ("chain", "found"),
    [
        ([], None),
        (["203.0.113.9"], "203.0.113.9"),
        (["6.6.6.6", "203.0.113.9", "10.0.0.1"], "203.0.113.9"),
        (["[2001:db8::1]:443", "10.0.0.1"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["203.0.113.9", "unknown"], None),
        (["unknown", "10.0.0.2", "10.0.0.1"], "10.0.0.2"),
        (["10.0.0.2", "10.0.0.1"], "10.0.0.2"),
    ],
)
async def test_the_client_of_a_chain(chain: list[str], found: str | None) -> None:
    assert TrustedProxies(["10.0.0.0/8"]).find_client(chain) == found


async def test_loopback_alone_is_trusted_unless_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    default = TrustedProxies(load_settings({}).trusted_proxies)
    assert default.has("127.0.0.1")
    assert default.has("127.9.9.9")
    assert default.has("::1")
    assert not default.has("10.0.0.1")
    monkeypatch.setenv("OAR_TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.7")
    assert load_settings({}).trusted_proxies == ("10.0.0.0/8", "192.0.2.7")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("OAR_TRUSTED_PROXIES", "10.0.0.0/8,proxy.example", "'proxy.example' is no address or network"),
        ("OAR_TRUSTED_PROXIES", "10.0.0.1/8", "is no address or network"),
        ("OAR_ROOT_PATH", "oar", "no path such as /oar"),
        ("OAR_ROOT_PATH", "//oar", "no path such as /oar"),
        ("OAR_ROOT_PATH", "/oar/../x", "no path such as /oar"),
        ("OAR_ROOT_PATH", "/v1/oar", "/v1 is an address of the server itself"),
        ("OAR_ALLOWED_HOSTS", "pictures.example:443", "is no host name"),
        ("OAR_ALLOWED_HOSTS", "https://pictures.example", "is no host name"),
    ],
)
async def test_what_cannot_be_meant_is_said_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name}: .*{sentence}"):
        load_settings({})


async def test_named_hosts_are_checked_wherever_it_listens(redis_server: EmbeddedRedis) -> None:
    """On 0.0.0.0, too, a page whose name was bound to this machine is refused."""
    settings = Settings(
        redis_url=redis_server.url,
        registry_seconds=0,
        host="0.0.0.0",
        allowed_hosts=("pictures.example", "*.inside.example"),
    )
    with ApiThread(settings) as url:
        async with httpx.AsyncClient(base_url=url) as through:
            for host in ("pictures.example", "PICTURES.example:8000", "a.inside.example", "10.0.0.9:8000", "localhost"):
                assert (await through.get("/live", headers={"Host": host})).status_code == 200, host
            for host in ("stranger.example", "a.pictures.example", "inside.example", "xpictures.example"):
                assert (await through.get("/live", headers={"Host": host})).status_code == 421, host
            for said, status in (("pictures.example", 200), ("stranger.example", 421)):
                headers = {"Host": "localhost", "X-Forwarded-Host": said}
                assert (await through.get("/live", headers=headers)).status_code == status
