"""Any place that it is put: folders of any name, locales without our letters, disks that cannot be written, no HOME."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from oar_cli import main
from oar_cli.settings_options import load_settings
from oar_client.address import DEFAULT_URL, Address
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis, EmbeddedRedisError
from server.settings import NEVER_EMPTY, Settings, environment_name
from server.worker.identity import Identity
from tests.server.live import ROOT, LiveServer

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
PROMPT = "ein grüner Ork …"
NAMES = ["a#b", "a?b=c", "a%20b", "a b", "grün-日本", "quote\"'s", "back\\slash", "a&b;c$d", "100%"]


def oar(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if name not in {"REDIS_URL", "OAR_URL"}}
    given = {**inherited, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-m", "oar_cli", *words], env=given, cwd=cwd, capture_output=True, check=False
    )


# data folders


@pytest.mark.anyio
@pytest.mark.parametrize("name", NAMES)
async def test_a_data_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    """The address of its socket is a URL: what begins a query or a fragment there did so in a folder's name."""
    redis = EmbeddedRedis(tmp_path / name)
    redis.start()
    try:
        assert Settings(redis_url=redis.url).redis_url == redis.url
        connection = RedisConnection(redis.url)
        await connection.once("SET", "key", "value")
        await connection.close()
        second = EmbeddedRedis(tmp_path / name)
        second.start()
        second.stop()
    finally:
        redis.stop()
    assert list((tmp_path / name / "redis").glob("append*")), "its data lie there"


def test_a_whole_server_lives_there(tmp_path: Path, weights_dir: Path) -> None:
    folder = tmp_path / "a#b?c=d %20grün"
    folder.mkdir()
    with LiveServer(folder, weights_dir) as server:
        assert server.post(wait=30).json()["status"] == "completed"


def test_a_name_that_is_no_text_is_one_too(tmp_path: Path) -> None:
    """A file's name is bytes: here such that are no UTF-8."""
    redis = EmbeddedRedis(tmp_path / "a\udcffb")
    redis.start()
    redis.stop()


# locales


@pytest.fixture(scope="module")
def latin_1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Latin-1 locale, made for this test."""
    localedef = shutil.which("localedef")
    if localedef is None:
        pytest.skip("needs localedef")
    folder = tmp_path_factory.mktemp("locales")
    words = [localedef, "-i", "en_US", "-f", "ISO-8859-1", str(folder / "en_US.ISO-8859-1")]
    if subprocess.run(words, capture_output=True, check=False).returncode > 1:
        pytest.skip("needs the sources of locales: apt-get install locales")
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"}


@pytest.mark.parametrize("locale", ["ascii", "latin-1"])
def test_the_locale_changes_nothing(
    tmp_path: Path, weights_dir: Path, locale: str, request: pytest.FixtureRequest
) -> None:
    environment = ASCII if locale == "ascii" else request.getfixturevalue("latin_1")
    folder = tmp_path / "grün"
    folder.mkdir()
    with LiveServer(folder, weights_dir, **environment) as server:
        page = server.client.get("/")
        assert "One moment …" in page.content.decode()
        job = server.post(wait=30, prompt="a red circle", model=None).json()
        assert job["status"] == "completed"
        assert server.post(prompt=PROMPT).status_code == 202
        data = {"OAR_DATA_DIR": str(folder / "data"), **environment}
        for words in (["jobs", "list", "--all"], ["jobs", "list", "--all", "--json"]):
            listed = oar(*words, **data)
            assert listed.returncode == 0, listed.stderr.decode(errors="replace")
        prompts = {entry["params"]["prompt"] for entry in json.loads(listed.stdout.decode("ascii"))}
        assert PROMPT in prompts
    models = oar("models", OAR_WEIGHTS_DIR=str(weights_dir), **environment)
    assert models.returncode == 0, models.stderr


# disks


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A folder that nobody can make, root neither: above it lies a file."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "data"


def test_a_folder_that_cannot_be_used_is_said_in_a_sentence(unwritable: Path, weights_dir: Path) -> None:
    with pytest.raises(EmbeddedRedisError, match=r"data folder .*data cannot be used \(.*\): set OAR_DATA_DIR"):
        EmbeddedRedis(unwritable).start()
    for verb, code in (("serve", 78), ("api", 78), ("worker", 78)):
        ended = oar(verb, OAR_DATA_DIR=str(unwritable), OAR_PORT="0", OAR_WEIGHTS_DIR=str(weights_dir))
        text = ended.stderr.decode()
        assert (ended.returncode, "set OAR_DATA_DIR" in text, "Traceback" in text) == (code, True, False), text


def test_with_a_redis_elsewhere_nothing_need_be_written(
    unwritable: Path, weights_dir: Path, tmp_path: Path, redis_server: EmbeddedRedis
) -> None:
    """As in a container with a read-only root and no home."""
    settings = {"OAR_DATA_DIR": str(unwritable), "REDIS_URL": redis_server.url, "PYTHONDONTWRITEBYTECODE": "1"}
    home = {"without": ("HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "USER", "LOGNAME")}
    with LiveServer(tmp_path, weights_dir, **settings, OAR_CALIBRATE="true", **home) as server:
        assert server.post(wait=30).json()["status"] == "completed"
        log = server.log.read_text(encoding="utf-8")
    assert "the worker's name is not kept" in log
    assert "the calibration is not kept" in log
    assert "Traceback" not in log


def test_a_name_that_cannot_be_kept_is_a_new_one(unwritable: Path) -> None:
    one, other = Identity(unwritable), Identity(unwritable)
    assert one.name != other.name
    one.close()
    other.close()


def test_a_runtime_folder_that_is_gone_is_passed_over(
    tmp_path: Path, unwritable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sudo` and containers pass XDG_RUNTIME_DIR on, and not the folder."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(unwritable))
    redis = EmbeddedRedis(tmp_path / ("long" * 30))
    redis.start()
    redis.stop()


# empty variables


@pytest.mark.parametrize("field", Settings.model_fields)
@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_variable_is_an_unset_one_but_for_keys(
    monkeypatch: pytest.MonkeyPatch, field: str, value: str
) -> None:
    """`${NAME:-}` of a compose file. OAR_HOST= listened on all addresses, OAR_OTLP_ENDPOINT= turned traces on."""
    monkeypatch.setenv(environment_name(field), value)
    if field not in NEVER_EMPTY:
        assert getattr(load_settings({}), field) == Settings.model_fields[field].default
        return
    result = CliRunner().invoke(main, ["api"])
    assert result.exit_code == 78
    assert f"{environment_name(field)} is empty" in result.output


def test_an_empty_key_of_a_client_is_none(monkeypatch: pytest.MonkeyPatch, live: LiveServer) -> None:
    monkeypatch.setenv("OAR_API_KEY", "")
    monkeypatch.setenv("OAR_URL", "")
    top = CliRunner().invoke(main, ["top", "--json", "--interval", "0.1", "--url", live.url])
    assert top.exit_code == 0, top.output
    assert "Authorization" not in Address(None, None).headers
    assert Address(None, None).base_url == DEFAULT_URL
