"""Results that stay: in a folder and in S3, when Redis has forgotten their job."""

import contextlib
import json
import os
import re
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from redis import Redis

from oar_cli import main
from server.jobs.embedded import EmbeddedRedis
from server.settings import Settings
from tests.models.videos import NAME as VIDEO
from tests.server.api_thread import ApiThread
from tests.server.films import MODELS, write_both
from tests.server.live import LiveServer
from tests.server.results.s3_server import BUCKET, S3Server, s3_server
from tests.server.tenants import Keys, bearer, write_keys
from tests.waiting import HANG_SECONDS, wait_for

SHORT = {"OAR_RESULT_TTL": "1", "OAR_SWEEP_SECONDS": "0.05"}
UNKNOWN = f"gen-{'0' * 32}"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Settings of a server with this store."""
    if request.param == "folder":
        return SHORT
    server: S3Server = request.getfixturevalue("s3")
    return {**SHORT, **server.environment, "OAR_RESULTS": f"s3://{BUCKET}/{tmp_path.name}"}


def redis_of(server: LiveServer) -> Redis:
    return Redis.from_url(EmbeddedRedis(server.data_dir / "data").url)


def finish(server: LiveServer, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    """A completed job."""
    answer = server.client.post(
        "/v1/generations", json={"prompt": "a red circle", **body}, headers={"Prefer": "wait=60", **(headers or {})}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "completed"
    return answer.json()


def wait_until_forgotten(server: LiveServer, *job_ids: str) -> None:
    """Until Redis holds nothing of the jobs but that they were there."""
    with contextlib.closing(redis_of(server)) as redis:
        for job_id in job_ids:
            names = [f"{kind}:{job_id}" for kind in ("job", "ev", "pv", "out", "img")]
            wait_for(lambda names=names: not redis.exists(*names, f"{names[-1]}:0"))


def read_all(server: LiveServer, job_id: str) -> dict[str, Any]:
    """All that a client can ask for of a job."""
    status = server.client.get(f"/v1/generations/{job_id}").raise_for_status().json()
    pictures = [server.png(job_id, image["index"]) for image in status["images"]]
    with server.client.stream("GET", f"/v1/generations/{job_id}/events") as lines:
        events = [line for line in lines.iter_lines() if line.startswith("data:")]
    painting = server.client.get(f"/v1/generations/{job_id}/images/0/painting", params={"format": "webp"})
    assert painting.status_code == 200, painting.text
    return {
        "status": status,
        "pictures": pictures,
        "events": events,
        "stream": server.events(job_id),
        "painting": painting.content,
    }


def test_a_result_outlives_its_record_a_restart_and_a_second_process(
    tmp_path: Path, weights_dir: Path, stored: dict[str, str]
) -> None:
    with LiveServer(tmp_path, weights_dir, **stored) as server:
        job_id = finish(server, n=2, seed=7)["id"]
        first = server.png(job_id)
        wait_until_forgotten(server, job_id)
        known = read_all(server, job_id)
        assert known["pictures"][0] == first
        assert len(known["pictures"]) == 2
        assert known["status"]["status"] == "completed"
        assert known["stream"][0]["type"] == "queued"
        assert known["stream"][-1]["type"] == "completed"
        assert len(known["events"]) == len(known["stream"])
        etag = server.client.get(f"/v1/generations/{job_id}/images/0").headers["ETag"]
        answer = server.client.get(f"/v1/generations/{job_id}/images/0", headers={"If-None-Match": etag})
        assert answer.status_code == 304
        with redis_of(server) as redis:
            assert redis.zcard("archive") == 0
            assert not redis.keys("img:*"), "pictures were never there"
            assert {key.split(b":")[0] for key in redis.keys("*gen-*")} <= {b"tomb"}
            url = EmbeddedRedis(server.data_dir / "data").url
        settings = Settings(
            redis_url=url, data_dir=server.data_dir / "data", results=stored.get("OAR_RESULTS", "folder")
        )
        with environment(stored), ApiThread(settings) as other:
            assert httpx.get(f"{other}/v1/generations/{job_id}/images/0", trust_env=False).content == first
    with LiveServer(tmp_path, weights_dir, **stored) as server:
        assert read_all(server, job_id) == known
        assert server.client.get(f"/v1/generations/{UNKNOWN}").status_code == 404


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        yield


def test_a_purge_takes_the_pictures_along(tmp_path: Path, weights_dir: Path, stored: dict[str, str]) -> None:
    with LiveServer(tmp_path, weights_dir, **stored) as server:
        kept, early, late = (finish(server, seed=seed)["id"] for seed in range(3))
        wait_until_forgotten(server, kept, late)
        early = finish(server, seed=4)["id"]
        for job_id in (early, late):
            plain = server.client.delete(f"/v1/generations/{job_id}")
            assert (plain.status_code, plain.json()["status"]) == (200, "completed")
            assert server.png(job_id), "a cancel that comes too late deletes nothing"
            purged = server.client.delete(f"/v1/generations/{job_id}", params={"purge": "true"})
            assert (purged.status_code, purged.json()["status"]) == (200, "completed")
            gone = server.client.get(f"/v1/generations/{job_id}/images/0")
            assert gone.status_code == 410, gone.text
            assert server.client.get(f"/v1/generations/{job_id}").status_code == 410
            again = server.client.delete(f"/v1/generations/{job_id}", params={"purge": "true"})
            assert again.status_code == 410
        assert server.png(kept)


def test_a_purge_in_redis_too(tmp_path: Path, weights_dir: Path) -> None:
    with LiveServer(tmp_path, weights_dir, OAR_RESULTS="redis") as server:
        job_id = finish(server)["id"]
        with redis_of(server) as redis:
            assert redis.exists(f"img:{job_id}:0")
            before = int(redis.hget("storage:-", "total") or 0)
            assert server.client.delete(f"/v1/generations/{job_id}?purge=true").status_code == 200
            assert [key for key in redis.keys("*gen-*") if not key.startswith(b"tomb:")] == []
            assert int(redis.hget("storage:-", "total") or 0) < before, "its bytes are the tenant's again"
        assert server.client.get(f"/v1/generations/{job_id}/images/0").status_code == 410


def test_a_video_and_its_frames_stay(tmp_path: Path, stored: dict[str, str]) -> None:
    (tmp_path / "weights").mkdir()
    write_both(tmp_path / "weights")
    with LiveServer(tmp_path, tmp_path / "weights", OAR_MODELS=MODELS, **stored) as server:
        job = finish(server, model=VIDEO, prompt="thing 3")
        links = [output["url"] for output in job["outputs"]]
        assert {output["kind"] for output in job["outputs"]} == {"frame", "video"}
        known = [server.client.get(link).raise_for_status().content for link in links]
        wait_until_forgotten(server, job["id"])
        found = [server.client.get(link).raise_for_status() for link in links]
        assert [answer.content for answer in found] == known
        assert [answer.headers["Content-Type"] for answer in found] == [
            output["media_type"] for output in job["outputs"]
        ]


@pytest.mark.parametrize("store", ["folder", "redis"])
def test_an_export_has_all_pictures_with_their_recipes(
    tmp_path: Path, weights_dir: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LiveServer(tmp_path, weights_dir, OAR_RESULTS=store, OAR_SWEEP_SECONDS="0.05") as server:
        job = finish(server, n=2, seed=7)
        failed = server.submit(deadline=0.001)["id"]
        wait_for(lambda: ended(server, failed))
        pictures = [server.png(job["id"], index) for index in range(2)]
        data_dir = server.data_dir / "data"
        if store == "folder":
            wait_for((data_dir / "results/-" / job["id"] / "record.json").exists)
        monkeypatch.setenv("OAR_DATA_DIR", str(data_dir))
        out = tmp_path / "out"
        first = export(out)
        assert first == {"jobs": 1, "written": 2, "folder": str(out)}
        assert [(out / f"-/{job['id']}-image-{index}.png").read_bytes() for index in range(2)] == pictures
        (line,) = (json.loads(line) for line in (out / "results.jsonl").read_text().splitlines())
        assert (line["id"], line["tenant"], len(line["files"])) == (job["id"], "-", 2)
        assert line["params"]["seed"] == 7
        assert export(out)["written"] == 0
        assert export(tmp_path / "none", "--tenant", "nobody")["jobs"] == 0
    if store == "folder":
        assert export(tmp_path / "again")["written"] == 2, "no server is needed"


def export(*words: Path | str) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["results", "export", *map(str, words), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_another_tenant_finds_nothing(tmp_path: Path, weights_dir: Path, stored: dict[str, str]) -> None:
    keys: Keys = write_keys(tmp_path)
    with LiveServer(tmp_path, weights_dir, OAR_API_KEYS=str(keys.path), **stored) as server:
        job_id = finish(server, bearer(keys.one))["id"]
        link = server.client.post(
            "/v1/images/generations",
            json={"prompt": "a red circle", "response_format": "url"},
            headers=bearer(keys.one),
        ).json()["data"][0]["url"]
        wait_until_forgotten(server, job_id, re.findall("gen-[0-9a-f]+", link)[0])
        own, foreign = bearer(keys.one), bearer(keys.other)
        assert server.client.get(f"/v1/generations/{job_id}/images/0", headers=own).status_code == 200
        for path in ("", "/images/0", "/events", "/images/0/painting"):
            assert server.client.get(f"/v1/generations/{job_id}{path}", headers=foreign).status_code == 404
        deleted = server.client.delete(f"/v1/generations/{job_id}", params={"purge": "true"}, headers=foreign)
        assert deleted.status_code == 404
        assert server.client.get(f"/v1/generations/{job_id}/images/0", headers=own).status_code == 200
        assert httpx.get(link, trust_env=False).status_code == 200, "a signed link goes on to open it"
        assert httpx.get(link.replace("format=png", "format=webp"), trust_env=False).status_code == 403


@pytest.mark.parametrize(
    "job_id", ["..%2F..%2Fone%2Fgen-1", "%2e%2e", "..", "-%2Fgen-1", "gen-1%00", "gen-1%0a", "x" * 300]
)
def test_no_id_leads_out_of_the_store(live: LiveServer, job_id: str) -> None:
    for path in ("", "/images/0", "/events"):
        answer = live.client.get(f"/v1/generations/{job_id}{path}")
        assert answer.status_code == 404, answer.text
    assert live.client.delete(f"/v1/generations/{job_id}?purge=true").status_code in {404, 405}


@pytest.mark.running
def test_a_worker_that_is_killed_between_the_pictures_and_the_ending(tmp_path: Path, weights_dir: Path) -> None:
    """The pictures are in the folder, and nobody was told: the next worker's stand beside them."""
    with LiveServer(tmp_path, weights_dir, is_gated=True, OAR_LEASE_SECONDS="1", **SHORT) as server:
        reference = server.png(finish(server, seed=3)["id"])
        (worker,) = server.children("worker")
        with redis_of(server) as redis:
            with server.held():
                job_id = server.submit(seed=3)["id"]
                wait_for(lambda: redis.hget(f"job:{job_id}", "state") == b"running")
                redis.execute_command("CLIENT", "PAUSE", 3_600_000, "WRITE")  # the ending has to wait
            folder = server.data_dir / "data/results/-" / job_id
            wait_for((folder / "1-image-0.png").exists)
            os.kill(worker, signal.SIGKILL)
            redis.execute_command("CLIENT", "UNPAUSE")
            assert wait_for(lambda: ended(server, job_id))["status"] == "completed"
            assert server.png(job_id) == reference
        wait_until_forgotten(server, job_id)
        assert server.png(job_id) == reference
        names = {path.name for path in folder.iterdir()}
        assert names == {"1-image-0.png", "2-image-0.png", "events.json.gz", "record.json"}


def ended(server: LiveServer, job_id: str) -> dict[str, Any] | None:
    status = server.client.get(f"/v1/generations/{job_id}").json()
    return status if status["status"] in {"completed", "failed", "canceled"} else None


def break_folder(data_dir: Path) -> Callable[[], None]:
    """Takes the folder away and puts a file there; returns how it is mended."""
    results, aside = data_dir / "results", data_dir / "aside"
    results.rename(aside)
    results.write_text("in the way")

    def mend() -> None:
        results.unlink()
        aside.rename(results)

    return mend


@pytest.mark.running
def test_a_store_that_fails_loses_nothing_and_takes_nothing_new(tmp_path: Path, weights_dir: Path) -> None:
    with LiveServer(tmp_path, weights_dir, is_gated=True, OAR_SWEEP_SECONDS="0.05") as server:
        old = finish(server)["id"]
        with server.held():
            running = server.submit(seed=5)["id"]
            mend = break_folder(server.data_dir / "data")
        refused = wait_for(lambda: answer if (answer := server.post()).status_code == 503 else None)
        assert refused.json()["error"]["code"] == "results_unavailable"
        assert int(refused.headers["Retry-After"]) >= 1
        assert server.client.get("/ready").json()["status"] == "degraded"
        wait_for(lambda: "oar_results_failed_total" in server.client.get("/metrics").text)
        assert server.client.get(f"/v1/generations/{running}").json()["status"] == "running"
        mend()
        assert wait_for(lambda: ended(server, running))["status"] == "completed"
        assert server.png(running)
        assert server.png(old)
        wait_for(lambda: server.post().status_code == 202)


def test_what_is_wrong_with_the_store_is_a_sentence_at_the_start(
    tmp_path: Path, weights_dir: Path, s3: S3Server
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/results").write_text("in the way")
    for settings, sentence in (
        ({}, "results cannot be written to the folder"),
        (
            {**s3.environment, "OAR_RESULTS": "s3://missing/x"},
            "results cannot be written to s3://missing/x: NoSuchBucket",
        ),
        ({"OAR_RESULTS": "somewhere"}, "OAR_RESULTS: 'somewhere' is not redis, folder"),
    ):
        server = LiveServer(tmp_path, weights_dir, **settings)
        with pytest.raises(AssertionError, match="no URL"):
            server.__enter__()
        assert server.process.stdout is not None
        server.process.stdout.close()
        assert server.process.wait(HANG_SECONDS) == 78
        assert sentence in server.log.read_text(encoding="utf-8")


def test_the_folder_is_the_owners_alone(tmp_path: Path, weights_dir: Path) -> None:
    with LiveServer(tmp_path, weights_dir, **SHORT) as server:
        job_id = finish(server)["id"]
        wait_until_forgotten(server, job_id)
        results = server.data_dir / "data/results"
        assert stat.S_IMODE(results.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in (results / "-" / job_id).iterdir()} == {0o600}
