"""Signed links: what `response_format=url` answers with opens without a key, for a while, and opens nothing else."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import openai
import pytest
from redis import Redis

from server.jobs.embedded import EmbeddedRedis
from server.settings import Settings
from tests.server.api_thread import ApiThread
from tests.server.live import LiveServer
from tests.server.nginx import Nginx, needs_nginx
from tests.server.tenants import Keys, bearer, write_keys
from tests.waiting import HANG_SECONDS, wait_for

PROMPT = "a red circle"
SECRET = "a-secret-of-at-least-thirty-two-characters"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return write_keys(tmp_path_factory.mktemp("keys"), other="rate = 0.001\nburst = 3")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path, keys: Keys) -> Iterator[LiveServer]:
    """A server that asks for keys."""
    with LiveServer(tmp_path_factory.mktemp("locked"), weights_dir, OAR_API_KEYS=str(keys.path)) as server:
        yield server


def draw(server: LiveServer, key: str, **options: Any) -> str:
    """The address that the real client gets."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=HANG_SECONDS) as client:
        wanted: dict[str, Any] = {"prompt": PROMPT, "response_format": "url", "extra_body": {"seed": 7}, **options}
        data = client.images.generate(**wanted).data
    assert data is not None
    assert data[0].url is not None
    return data[0].url


def fetch(url: str, **options: Any) -> httpx.Response:
    """As somebody does who has nothing but the address."""
    return httpx.request(options.pop("method", "GET"), url, timeout=HANG_SECONDS, trust_env=False, **options)


def code(answer: httpx.Response) -> str:
    return answer.json()["error"]["code"]


def native(server: LiveServer, key: str, url: str) -> httpx.Response:
    """The same picture with the key, at the address without a signature."""
    return fetch(url.partition("&expires=")[0], headers=bearer(key))


@pytest.fixture(scope="module")
def link(locked: LiveServer, keys: Keys) -> str:
    return draw(locked, keys.one)


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_a_plain_get_without_a_key_gets_the_picture(locked: LiveServer, keys: Keys, kind: str) -> None:
    url = draw(locked, keys.one, output_format=kind)
    answer = fetch(url)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, f"image/{kind}")
    assert answer.content == native(locked, keys.one, url).content
    head = fetch(url, method="HEAD")
    assert (head.status_code, head.content, head.headers["ETag"]) == (200, b"", answer.headers["ETag"])
    assert fetch(url, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    assert fetch(url.partition("&expires=")[0]).status_code == 401, "unsigned it is as locked as ever"


def test_both_shapes_of_an_answer_and_every_picture_of_it(locked: LiveServer, keys: Keys) -> None:
    with openai.OpenAI(base_url=f"{locked.url}/v1", api_key=keys.one, max_retries=0, timeout=HANG_SECONDS) as client:
        data = client.images.generate(prompt=PROMPT, n=3, extra_body={"seed": 7}).data
    assert data is not None
    contents = [fetch(image.url or "").content for image in data]
    assert contents == [base64.b64decode(image.b64_json or "") for image in data]
    assert len(set(contents)) == 3


def test_it_says_how_long_it_is_valid_and_not_whose_it_is(link: str, keys: Keys) -> None:
    query = parse_qs(urlsplit(link).query)
    assert query.keys() == {"format", "metadata", "expires", "signature"}
    assert len(base64.urlsafe_b64decode(query["signature"][0] + "=")) == 32
    assert "one" not in urlsplit(link).query
    assert keys.one not in link


CHANGES = {
    "another job": lambda url: re.sub("gen-.", lambda found: "gen-1" if found[0] == "gen-0" else "gen-0", url),
    "another picture": lambda url: url.replace("/images/0", "/images/1"),
    "another format": lambda url: url.replace("format=png", "format=webp"),
    "with something more": lambda url: url.replace("&expires", "&compression=1&expires"),
    "later": lambda url: re.sub(r"expires=\d", "expires=9", url),
    "for ever": lambda url: re.sub(r"&expires=\d+", "", url),
    "no number": lambda url: re.sub(r"expires=\d+", "expires=never", url),
    "two times": lambda url: url.replace("&signature", "&expires=99999999999&signature"),
    "signed by nobody": lambda url: re.sub("signature=.*", "signature=", url),
    "signed by somebody": lambda url: re.sub("signature=.*", "signature=" + "A" * 43, url),
    "a longer signature": lambda url: url + "A",
    "no text": lambda url: re.sub("signature=.*", "signature=%ff%00", url),
    "after it": lambda url: url + "&metadata=false",
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_link_that_was_changed_opens_nothing(link: str, change: str) -> None:
    answer = fetch(CHANGES[change](link))
    assert (answer.status_code, code(answer)) == (403, "invalid_link")
    assert set(answer.json()["error"]) == {"code", "message", "field", "type"}


@pytest.mark.parametrize(
    ("path", "method"),
    [("", "GET"), ("/events", "GET"), ("/images/0", "DELETE"), ("/images/0", "POST"), ("", "DELETE")],
)
def test_a_link_opens_no_other_address(link: str, path: str, method: str) -> None:
    other = re.sub(r"/images/0(?=\?)", path, link)
    assert code(fetch(other, method=method)) == "invalid_api_key"


def test_a_key_that_comes_along_counts(locked: LiveServer, keys: Keys, link: str) -> None:
    assert fetch(link, headers=bearer(keys.one)).status_code == 200
    assert code(fetch(link, headers=bearer(keys.other))) == "job_not_found", "as another tenant's job always is"
    assert code(fetch(link, headers=bearer("oar_wrong"))) == "invalid_api_key"


def test_an_expired_link_says_so(tmp_path: Path, weights_dir: Path, keys: Keys) -> None:
    with LiveServer(tmp_path, weights_dir, OAR_API_KEYS=str(keys.path), OAR_LINK_SECONDS="1") as server:
        url = draw(server, keys.one)
        wait_for(lambda: fetch(url).status_code == 403)
        answer = fetch(url)
        assert (answer.status_code, code(answer)) == (403, "link_expired")
        assert code(fetch(re.sub("signature=.*", "signature=x", url))) == "invalid_link", "whenever it was made"
        assert native(server, keys.one, url).status_code == 200


def test_who_opens_links_does_not_use_up_the_owners_requests(locked: LiveServer, keys: Keys) -> None:
    """`other` may ask three times, and so may all who have its links."""
    url = draw(locked, keys.other)
    assert [fetch(url).status_code for _ in range(4)] == [200, 200, 200, 429]
    answer = fetch(url)
    assert (code(answer), int(answer.headers["Retry-After"]) > 0) == ("rate_limited", True)
    assert native(locked, keys.other, url).status_code == 200


def test_any_api_process_opens_what_another_one_signed(locked: LiveServer, keys: Keys, link: str) -> None:
    def opened(**settings: Any) -> httpx.Response:
        redis = EmbeddedRedis(locked.data_dir / "data")
        settings |= {"results": "folder", "data_dir": locked.data_dir / "data"}
        with ApiThread(Settings(redis_url=redis.url, api_keys=keys.path, **settings)) as url:
            return fetch(link.replace(locked.url, url))

    assert opened().status_code == 200
    assert code(opened(link_secret=SECRET)) == "invalid_link"


def test_a_secret_of_the_operators_outlives_the_data(tmp_path: Path, weights_dir: Path, keys: Keys) -> None:
    settings = {"OAR_API_KEYS": str(keys.path), "OAR_LINK_SECRET": SECRET}
    with LiveServer(tmp_path, weights_dir, **settings) as server:
        url = draw(server, keys.one)
        assert fetch(url).status_code == 200
        (job_id,) = re.findall("gen-[0-9a-f]+", url)
        wait_for((server.data_dir / "data/results/one" / job_id / "record.json").exists)
        with Redis.from_url(EmbeddedRedis(server.data_dir / "data").url) as client:
            assert client.exists("link:secret") == 0
            client.flushall()
        assert fetch(url).status_code == 200, "the link is good, and the picture in its folder"


def test_a_tenant_that_is_taken_out_takes_its_links_along(tmp_path: Path, weights_dir: Path) -> None:
    keys = write_keys(tmp_path)
    with LiveServer(tmp_path, weights_dir, OAR_API_KEYS=str(keys.path)) as server:
        url = draw(server, keys.one)
        assert fetch(url).status_code == 200
        text = keys.path.read_text(encoding="utf-8")
        keys.path.write_text(text.replace("[tenants.one]", "[tenants.somebody]"), encoding="utf-8")
        wait_for(lambda: fetch(url).status_code == 403)
        assert code(fetch(url)) == "invalid_link"


def test_without_keys_a_link_is_a_plain_address(live: LiveServer) -> None:
    url = draw(live, "none")
    assert parse_qs(urlsplit(url).query).keys() == {"format", "metadata"}
    assert fetch(url).status_code == 200
    assert fetch(f"{url}&expires=1&signature=x").status_code == 200, "nobody is asked for anything"


@needs_nginx
@pytest.mark.parametrize("keeps_prefix", [True, False])
def test_behind_a_proxy_below_a_prefix(tmp_path: Path, locked: LiveServer, keys: Keys, keeps_prefix: bool) -> None:
    headers = ("Host $http_host", "X-Forwarded-Prefix /oar")
    with Nginx(tmp_path, locked.url, *headers, keeps_prefix=keeps_prefix) as proxy:
        body = {"prompt": PROMPT, "response_format": "url"}
        answer = httpx.post(
            f"{proxy.url}/v1/images/generations",
            json=body,
            headers=bearer(keys.one),
            timeout=HANG_SECONDS,
            trust_env=False,
        )
        (picture,) = answer.json()["data"]
        assert picture["url"].startswith(f"{proxy.url}/v1/generations/")
        assert fetch(picture["url"]).headers["Content-Type"] == "image/png"
        assert fetch(picture["url"], method="HEAD").status_code == 200
        assert code(fetch(picture["url"] + "x")) == "invalid_link"
        direct = picture["url"].replace(proxy.url, locked.url)
        assert fetch(direct).status_code == 200, "the prefix is no part of what is signed"
