"""One version: the package's, the client's, the documents' and the changelog's."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from setuptools.config.pyprojecttoml import read_configuration

from oar_cli import main
from oar_client.address import USER_AGENT
from oar_wire.version import VERSION

ROOT = Path(__file__).parents[2]


def test_it_is_the_changelogs_newest_with_dev_until_that_is_out() -> None:
    found = re.search(r"^## (\S+)( \(unreleased\))?$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert found is not None
    assert found[1] + (".dev0" if found[2] else "") == VERSION


@pytest.mark.filterwarnings("ignore::UserWarning:setuptools")
@pytest.mark.parametrize("folder", [".", "clients/python"])
def test_packages_take_it_from_its_file(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / folder)
    assert read_configuration(ROOT / folder / "pyproject.toml")["project"]["version"] == VERSION


def test_it_is_told_alike_everywhere() -> None:
    assert CliRunner().invoke(main, ["--version"]).output.strip() == VERSION
    assert USER_AGENT.endswith(f"/{VERSION}")
    for name in ("openapi.json", "asyncapi.json"):
        assert json.loads((ROOT / "docs" / name).read_text(encoding="utf-8"))["info"]["version"] == VERSION
