"""Verbs that look after a server find it, or say that there is none; `serve`, `api` and `worker` alone start Redis."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from oar_cli import main
from oar_wire.model import ModelInfo, WorkerInfo
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.store import Registry
from server.settings import Settings
from tests.server.api_thread import ApiThread
from tests.server.live import LiveServer
from tests.server.tenants import write_keys

VERBS = [["list"], ["list", "--all"], ["show", "gen-0"], ["dead"], ["retry", "gen-0"], ["cancel", "gen-0"]]
BODY = {"prompt": "a red circle"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, with nothing in the environment that names a server."""
    monkeypatch.chdir(tmp_path)
    for name in ("OAR_URL", "OAR_API_KEY", "OAR_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


@pytest.mark.parametrize("words", VERBS)
def test_where_nothing_runs_it_says_so_and_makes_nothing(words: list[str], tmp_path: Path) -> None:
    """It started a Valkey, made ./.oar, printed nothing and ended with 0."""
    output = run("jobs", *words, code=1)
    assert f"no server runs with the data folder {tmp_path / '.oar'}" in output
    assert "oar serve" in output
    assert ("--url or OAR_URL" in output) == (words[0] != "dead"), "a hint that this verb can follow"
    assert "REDIS_URL" in output
    assert list(tmp_path.iterdir()) == []


def test_no_url_is_named_where_there_is_none_to_give() -> None:
    output = run("models", "forget", "tiny", code=1)
    assert "OAR_DATA_DIR" in output
    assert "--url" not in output


@pytest.mark.parametrize("words", VERBS)
def test_a_folder_whose_server_has_stopped_is_no_server(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = EmbeddedRedis(tmp_path / "data")
    redis.start()
    redis.stop()
    monkeypatch.setenv("OAR_DATA_DIR", str(tmp_path / "data"))
    assert "no server runs" in run("jobs", *words, code=1)


@pytest.mark.parametrize(
    "words", [["top", "--json"], ["models"], *(["jobs", *words] for words in VERBS if words[0] != "dead")]
)
def test_a_server_that_is_not_there_is_said(words: list[str]) -> None:
    output = run(*words, "--url", "http://127.0.0.1:9", code=2 if "--all" in words else 75)
    assert "Error:" in output


def test_it_is_found_in_its_data_folder(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAR_DATA_DIR", str(live.data_dir / "data"))
    job = live.post(wait=30).json()
    assert json.loads(run("jobs", "show", job["id"], "--json"))["state"] == "completed"
    assert live.client.get("/ready").status_code == 200, "who looked and left took nothing along"


def test_every_verb_finds_it_by_its_url(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    job = live.post(wait=30).json()
    told = json.loads(run("jobs", "show", job["id"], "--json", "--url", live.url))
    monkeypatch.setenv("OAR_URL", live.url)
    assert json.loads(run("jobs", "show", job["id"], "--json")) == told
    assert (told["state"], told["result"]["images"][0]["index"]) == ("completed", 0)
    assert json.loads(run("top", "--json", "--interval", "0.1"))["url"] == live.url
    assert json.loads(run("models", "--json"))[0]["is_default"]
    assert run("jobs", "list") == ""
    assert "completed" in run("jobs", "cancel", job["id"])
    assert "only failed and canceled" in run("jobs", "retry", job["id"], code=1)
    assert "without a URL" in run("jobs", "list", "--all", code=2)


# The API alone, without a worker: what was submitted waits.


@pytest.fixture
def served(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    keys = write_keys(tmp_path_factory.mktemp("keys"))
    with ApiThread(Settings(redis_url=redis_server.url, registry_seconds=0, api_keys=keys.path)) as url:
        yield url, keys


async def serve_model(connection: RedisConnection, model_info: ModelInfo) -> None:
    """As a worker does."""
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 600)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2, step_seconds=0.5), 600)


@pytest.mark.anyio
async def test_a_tenant_lists_its_own_waiting_jobs(
    served: tuple[str, Any], connection: Any, model_info: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serve_model(connection, model_info)
    url, keys = served
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {keys.one}"}) as one:
        ids = [(await one.post("/v1/generations", json={**BODY, "seed": seed})).json()["id"] for seed in range(3)]
        listed = (await one.get("/v1/generations")).json()
        assert [job["id"] for job in listed["data"]] == ids, "the oldest first"
        assert listed["object"] == "list"
        assert [job["id"] for job in (await one.get("/v1/generations?limit=2")).json()["data"]] == ids[:2]
        assert (await one.get("/v1/generations?model=other")).json()["data"] == []
        for bad in ("0", "101", "x"):
            refused = await one.get(f"/v1/generations?limit={bad}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_limit")
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {keys.other}"}) as other:
        assert (await other.get("/v1/generations")).json()["data"] == [], "another's are none of its own"


@pytest.mark.anyio
async def test_the_command_line_looks_after_waiting_jobs(
    served: tuple[str, Any], connection: Any, model_info: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    import anyio

    await serve_model(connection, model_info)
    url, keys = served
    monkeypatch.setenv("OAR_URL", url)

    async def oar(*words: str, code: int = 0) -> str:
        return await anyio.to_thread.run_sync(lambda: run("jobs", *words, code=code))

    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {keys.one}"}) as one:
        job_id = (await one.post("/v1/generations", json=BODY)).json()["id"]
    assert "key" in await oar("list", code=77)
    monkeypatch.setenv("OAR_API_KEY", keys.one)
    assert (await oar("list")).startswith(f"{job_id}  queued  ")
    assert await oar("cancel", job_id) == "canceled\n"
    again = (await oar("retry", job_id)).strip()
    assert again != job_id
    assert (await oar("retry", job_id)).strip() == again, "said twice, it is one new job"
    assert json.loads(await oar("show", again, "--json"))["params"]["prompt"] == BODY["prompt"]
