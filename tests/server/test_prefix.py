"""Below a path of another server: every link that is given out leads back here, through a real nginx."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from click.testing import CliRunner
from websockets.sync.client import connect

from oar_cli import main
from oar_client import Client
from server.api.pages import WEB
from tests.server.live import LiveServer
from tests.server.nginx import Nginx, needs_nginx

pytestmark = needs_nginx

HOST = "Host $http_host"
PREFIX = "X-Forwarded-Prefix /oar"
JOB = {"prompt": "a red circle", "seed": 7, "steps": 4}


@pytest.fixture(scope="module")
def under_oar(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path) -> Iterator[LiveServer]:
    """A server that is told its prefix by its setting."""
    with LiveServer(tmp_path_factory.mktemp("under"), weights_dir, OAR_ROOT_PATH="/oar/") as server:
        yield server


@pytest.fixture(params=["takes the prefix off", "leaves it on", "tells it"])
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Nginx]:
    """The three ways of operators. Only the last needs no setting of ours."""
    if request.param == "tells it":
        nginx = Nginx(tmp_path, request.getfixturevalue("live").url, HOST, PREFIX)
    else:
        server: LiveServer = request.getfixturevalue("under_oar")
        nginx = Nginx(tmp_path, server.url, HOST, keeps_prefix=request.param == "leaves it on")
    with nginx:
        yield nginx


@pytest.fixture
def client(proxy: Nginx) -> Iterator[httpx.Client]:
    """Of what a browser or a script knows: the address below which the server is."""
    with httpx.Client(base_url=proxy.root, timeout=30, trust_env=False) as client:
        yield client


def test_every_link_of_a_job_leads_back(client: httpx.Client, proxy: Nginx) -> None:
    answer = client.post("/oar/v1/generations", json=JOB, headers={"Prefer": "wait=30"})
    job = answer.json()
    assert answer.headers["Location"] == job["url"] == f"/oar/v1/generations/{job['id']}"
    for link in (job["url"], job["images"][0]["url"], job["events_url"]):
        assert client.get(link).status_code == 200, link
    assert client.get(f"{proxy.url}/v1/generations/{job['id']}").json() == job
    edit = {"prompt": "a blue square", "image": _base64_of(client, job["images"][0]["url"]), "strength": 0.5}
    assert client.post("/oar/v1/edits", json=edit).headers["Location"].startswith("/oar/v1/generations/")


def test_both_streams_name_pictures_as_the_client_has_to_call_them(client: httpx.Client, proxy: Nginx) -> None:
    job = client.post("/oar/v1/generations", json=JOB).json()
    with connect(f"ws://127.0.0.1:{proxy.port}{job['stream_url']}?after=0", proxy=None) as socket:
        told: list[dict[str, Any]] = [json.loads(frame) for frame in socket]
    lines = client.get(job["events_url"]).text.splitlines()
    sent = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    for event in (told[-1], sent[-1]):
        assert event["type"] == "completed"
        assert event["images"][0]["url"] == f"/oar/v1/generations/{job['id']}/images/0"
        assert client.get(event["images"][0]["url"]).status_code == 200


def test_openai_clients_get_a_whole_address(client: httpx.Client, proxy: Nginx) -> None:
    body = {**JOB, "response_format": "url"}
    (picture,) = client.post("/oar/v1/images/generations", json=body).json()["data"]
    assert picture["url"].startswith(f"{proxy.url}/v1/generations/")
    assert httpx.get(picture["url"], trust_env=False).headers["Content-Type"] == "image/png"


@pytest.mark.parametrize("page", ["/oar/", "/oar/docs"])
def test_what_a_page_asks_for_is_there(client: httpx.Client, page: str) -> None:
    text = client.get(page).raise_for_status().text
    names = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert len(names) > 3
    for name in names:
        assert client.get(urljoin(page, name)).status_code == 200, name
    for name in re.findall(r'url\("([^"]+)"\)', text):
        assert client.get(urljoin(page, name)).status_code == 200, name


def test_no_module_names_an_address_from_the_root() -> None:
    for path in (WEB / "studio").iterdir():
        assert not re.findall(r"""["'`(]/(?:v1|studio|docs|live|ready)""", path.read_text(encoding="utf-8")), path.name


def test_both_documents_name_the_prefix(client: httpx.Client, proxy: Nginx) -> None:
    openapi = client.get("/oar/openapi.json").json()
    assert openapi["servers"] == [{"url": "/oar"}]
    assert client.get(openapi["externalDocs"]["url"]).status_code == 200
    servers = client.get("/oar/asyncapi.json").json()["servers"]
    host = f"127.0.0.1:{proxy.port}"
    assert servers["websocket"] == {"host": host, "protocol": "ws", "pathname": "/oar"}
    assert servers["http"] == {"host": host, "protocol": "http", "pathname": "/oar"}


def test_redirects_and_errors_stay_below_the_prefix(client: httpx.Client, proxy: Nginx) -> None:
    assert client.get("/oar/v1/models/").headers["Location"] == f"{proxy.url}/v1/models"
    assert client.get("/oar/redoc").headers["Location"] == "/oar/docs"
    openai = client.post("/oar/v1/images/generations", json={}).json()["error"]
    assert "param" in openai, "in the shape that these clients read"
    assert client.post("/oar/v1/generations", json={}).json()["error"]["field"] == "prompt"


def test_our_client_and_the_command_line_work_below_a_prefix(proxy: Nginx, tmp_path: Path) -> None:
    with Client(proxy.url) as client:
        job = client.submit("a red circle", steps=4)
        assert [event.type for event in job.events()][-1] == "completed"
        assert job.images("png")[0].data.startswith(b"\x89PNG")
    words = ["generate", "a red circle", "--steps", "4", "--url", proxy.url, "-o", str(tmp_path / "out.png")]
    assert CliRunner().invoke(main, words).exit_code == 0
    top = CliRunner().invoke(main, ["top", "--json", "--interval", "0.1", "--url", proxy.url])
    assert top.exit_code == 0, top.output


def _base64_of(client: httpx.Client, link: str) -> str:
    return base64.b64encode(client.get(link).content).decode()
