"""docs/architecture.md names files: they are there, and the registries that it names hold what it says."""

import re
from pathlib import Path

import pytest

from oar_core.models.load import CONDITIONERS, CONVERTERS, FAMILIES
from oar_core.order.paths import PATHS
from oar_core.order.rules import RULES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([\w./]+/[\w./]*|[\w]+\.toml)`", TEXT)))


@pytest.mark.parametrize("name", NAMED)
def test_what_the_page_names_is_there(name: str) -> None:
    assert (ROOT / name).exists()


def test_the_page_names_files_at_all() -> None:
    assert len(NAMED) > 25


@pytest.mark.parametrize("registry", [FAMILIES, RULES, PATHS, CONDITIONERS, CONVERTERS])
def test_registries_are_where_the_page_says(registry: object) -> None:
    assert registry


def test_every_family_is_on_the_page() -> None:
    assert [key for key in FAMILIES if f"`{key}`" not in TEXT] == []
