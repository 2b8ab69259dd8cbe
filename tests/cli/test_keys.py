"""`oar keys`, and the file that it writes."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from oar_cli import main
from oar_wire.tenant import TenantLimits
from server.api.keyring import KeyFileError, KeyRing, hash_key, new_key, read_key_file
from tests.waiting import HANG_SECONDS

HAND_WRITTEN = """\
# Who may paint. Ask Ines before you add one.
[defaults]
rate = 5

[tenants.studio]  # the page
priority_ceiling = "normal"
keys = [
    "sha256:{studio}",  # of the year 2026
]

[tenants.robot]
keys = []
queue_share = 0.25

[tenants."night-shift"]
keys = ["sha256:{night}"]
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.toml"
    monkeypatch.setenv("OAR_API_KEYS", str(path))
    return path


@pytest.fixture
def hand_written(path: Path) -> Path:
    path.write_text(HAND_WRITTEN.format(studio="a" * 64, night="b" * 64))
    return path


def oar(*words: str, typed: str = "", code: int = 0) -> Any:
    result = CliRunner().invoke(main, ["keys", *words], input=typed)
    assert result.exit_code == code, result.output
    return result


def test_a_key_is_shown_once_and_its_hash_is_kept(path: Path) -> None:
    result = oar("new", "studio")
    key = result.stdout.strip()
    assert key.startswith("oar_")
    assert len(key) == 4 + 43, "256 bits"
    assert key not in path.read_text()
    assert tomllib.loads(path.read_text()) == {"tenants": {"studio": {"keys": [hash_key(key)]}}}
    assert path.stat().st_mode & 0o007 == 0, "nobody else's to read"
    assert oar("check", typed=f"{key}\n").stdout == "studio\n"
    assert "nobody was given this key" in oar("check", typed="oar_wrong\n", code=1).output


def test_keys_are_random() -> None:
    assert len({new_key() for _ in range(1000)}) == 1000


def test_a_tenant_may_have_several_keys_and_there_may_be_several_tenants(path: Path) -> None:
    keys = {tenant: [oar("new", tenant).stdout.strip() for _ in range(3)] for tenant in ("studio", "robot", "x-1_y")}
    ring = KeyRing(path)
    for tenant, own in keys.items():
        found = [ring.find(key) for key in own]
        assert [each.name if each else None for each in found] == [tenant] * 3
    assert {tenant.name for tenant in ring.tenants} == set(keys)


@pytest.mark.parametrize("tenant", ["studio", "robot", "newcomer"])
def test_what_an_operator_wrote_by_hand_stays(hand_written: Path, tenant: str) -> None:
    before = hand_written.read_text()
    key = oar("new", tenant).stdout.strip()
    after = hand_written.read_text()
    assert KeyRing(hand_written).find(key) is not None
    for line in before.splitlines():
        assert line.strip().removesuffix("[").removesuffix("[]") in after, line
    assert tomllib.loads(after)["defaults"] == {"rate": 5}


def test_where_a_key_goes_is_said_when_it_cannot_be_put_there(hand_written: Path) -> None:
    """The quoted header is good TOML, and is not found by its plain name: nothing is written that was not checked."""
    before = hand_written.read_text()
    result = oar("new", "night-shift", code=1)
    assert "by hand" in result.output
    assert "sha256:" in result.output
    assert hand_written.read_text() == before


def test_without_a_file_the_lines_to_write_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OAR_API_KEYS", raising=False)
    result = oar("new", "studio")
    (tmp_path / "keys.toml").write_text(result.stderr)
    ring = KeyRing(tmp_path / "keys.toml")
    assert ring.find(result.stdout.strip()) == ring.tenants[0]
    assert "--file" in oar("list", code=2).output


@pytest.mark.parametrize("name", ["", "-", "Studio", "a b", "a:b", "x" * 41, "-x", "é"])
def test_a_bad_name_is_refused(path: Path, name: str) -> None:
    assert "name" in oar("new", "--", name, code=2).output
    assert not path.exists()


def test_the_hash_of_a_key_of_ones_own(path: Path) -> None:
    key = new_key()
    assert oar("hash", typed=f"{key}\n").stdout.strip() == hash_key(key)
    refused = oar("hash", typed="correct horse\n", code=2)
    assert "random" in refused.output
    assert "horse" not in refused.output


def test_the_list_shows_limits_and_no_whole_hash(hand_written: Path) -> None:
    text = oar("list").stdout
    assert "studio: 5/s burst 10, share 0.5, storage 0.5, up to normal, 64 sockets" in text
    assert "robot: 5/s burst 10, share 0.25, storage 0.5, up to high, 64 sockets" in text
    assert "sha256:aaaaaaaa…" in text
    assert "a" * 9 not in text


def test_the_file_of_the_docs_is_one(tmp_path: Path) -> None:
    """Its defaults are the server's own, as it says."""
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    (text,) = re.findall(r"```ini\n(.*?)```", page, re.S)
    for digit in "abc":
        text = text.replace("sha256:…", f"sha256:{digit * 64}", 1)
    (tmp_path / "keys.toml").write_text(text)
    file = read_key_file(tmp_path / "keys.toml")
    assert file.defaults == TenantLimits()
    assert (file.tenant("batch").priority_ceiling, file.tenant("studio").rate) == ("low", 20)


def test_defaults_of_the_file_come_before_the_servers_and_after_the_tenants_own(hand_written: Path) -> None:
    file = read_key_file(hand_written)
    studio, robot = file.tenant("studio"), file.tenant("robot")
    assert (studio.rate, studio.priority_ceiling, studio.queue_share) == (5, "normal", TenantLimits().queue_share)
    assert (robot.rate, robot.queue_share) == (5, 0.25)
    assert (robot.bucket, robot.max_jobs(100), robot.max_jobs(2)) == (10, 25, 1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "tenants: Field required"),
        ("[tenants", "no TOML"),
        ("[tenants.a]", "tenants.a.keys: Field required"),
        ("[tenants.a]\nkeys = []", "no tenant has a key"),
        ('[tenants.a]\nkeys = ["oar_in-the-clear"]', "tenants.a.keys.0"),
        ('[tenants.a]\nkeys = ["{hash}"]\nrat = 3', "tenants.a.rat: Extra inputs"),
        ('[tenants.a]\nkeys = ["{hash}"]\nrate = -1', "tenants.a.rate"),
        ('[tenants.a]\nkeys = ["{hash}"]\npriority_ceiling = "urgent"', "tenants.a.priority_ceiling"),
        ('[tenants.a]\nkeys = ["{hash}"]\nqueue_share = 1.5', "tenants.a.queue_share"),
        ('[tenants.A]\nkeys = ["{hash}"]', "tenants.A"),
        ('[tenants."-"]\nkeys = ["{hash}"]', "tenants.-"),
        ('[tenants.a]\nkeys = ["{hash}"]\n[tenants.b]\nkeys = ["{hash}"]', "a and b have the same key"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text.replace("{hash}", f"sha256:{'c' * 64}"))
    with pytest.raises(KeyFileError) as caught:
        read_key_file(path)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)
    assert "in-the-clear" not in str(caught.value)


def test_a_server_does_not_start_with_keys_that_it_cannot_read(path: Path, tmp_path: Path) -> None:
    """It would be open to everybody, or to nobody. 78 tells `oar serve` that starting it again does not help."""
    command = [sys.executable, "-m", "oar_cli", "api", "--port", "0", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 78
    assert f"{path}: cannot be read: No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr
