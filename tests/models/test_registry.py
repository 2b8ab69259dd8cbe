"""A family is one folder and one line of the registry: nothing else knows its name."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from oar_core.errors import ConfigError
from oar_core.models.family import ModelFamily
from oar_core.models.load import FAMILIES, NATIVE, family

ROOT = Path(__file__).parents[2]
PACKAGES = ("oar_core", "oar_wire", "oar_client", "server", "ops")
REGISTRY = ROOT / "oar_core" / "models" / "load.py"
# Packages of the native family, which trains and is measured, may name it.
FOREIGN = [key for key in FAMILIES if key != NATIVE]


def words(path: Path) -> Iterator[str]:
    """Imported modules, names and whole strings of a file; its comments and docstrings may refer to papers."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (node.module or "").split(".")
        elif isinstance(node, ast.Import):
            yield from (part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Name):
            yield node.id


@pytest.mark.parametrize("key", FOREIGN)
def test_no_file_outside_its_folder_names_a_family(key: str) -> None:
    folder = ROOT / "oar_core" / "models" / key
    others = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if folder not in path.parents]
    assert len(others) > 200
    assert [path for path in others if key in set(words(path))] == [REGISTRY]


@pytest.mark.parametrize("key", FOREIGN)
def test_no_script_names_a_family(key: str) -> None:
    scripts = [path for kind in ("js", "lua") for path in (ROOT / "server").rglob(f"*.{kind}")]
    own = [path for path in scripts if "docs" not in path.parts]  # Swagger UI is another project
    assert len(own) > 50
    assert [path for path in own if re.search(rf"\b{key}\b", path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("key", FAMILIES)
def test_every_key_has_a_folder_that_builds_something(key: str) -> None:
    found = family(key)
    assert isinstance(found, ModelFamily)
    assert found.backbone or found.tokenizer or found.frames


def test_an_unknown_family_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="there are oar, arpg"):
        family("diffusion")
    with pytest.raises(ConfigError, match="no image tokenizer"):
        family("lpd").build_tokenizer("lpd", {})
