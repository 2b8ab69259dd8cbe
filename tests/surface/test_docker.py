"""What can be checked of docker/ without a container engine: files, settings, users, and a drain within the grace."""

import re
from pathlib import Path

import pytest

from server.settings import Settings, environment_name

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
KNOWN = {environment_name(field) for field in Settings.model_fields}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_copied_path_is_in_the_repository(path: Path) -> None:
    copied = [line.split()[1:-1] for line in path.read_text().splitlines() if re.match(r"COPY (?!--)", line)]
    assert copied
    assert [name for names in copied for name in names if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", [*DOCKERFILES, ROOT / "docker" / "compose.yaml"], ids=lambda path: path.name)
def test_every_variable_is_a_setting(path: Path) -> None:
    named = set(re.findall(r"\b(OAR_[A-Z_]+|REDIS_URL)\b", path.read_text()))
    assert named
    assert named <= KNOWN


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_do_not_run_as_root_and_watch_their_health(path: Path) -> None:
    text = path.read_text()
    assert re.search(r"^USER oar$", text, re.M)
    assert re.search(r"^HEALTHCHECK ", text, re.M)


def test_the_api_image_installs_no_torch() -> None:
    assert "[worker]" not in (ROOT / "docker" / "api.Dockerfile").read_text()


def test_compose_gives_a_worker_longer_than_its_drain() -> None:
    text = (ROOT / "docker" / "compose.yaml").read_text()
    drain = re.search(r'OAR_DRAIN_SECONDS: "(\d+)"', text)
    grace = re.search(r"stop_grace_period: (\d+)s", text)
    assert drain is not None
    assert grace is not None
    assert int(grace[1]) >= int(drain[1]) + 10
