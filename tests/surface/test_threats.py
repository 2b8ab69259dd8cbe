"""The table of threats in docs/security.md: the bounds that it names are the code's, and the tests are there."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oar_wire.tenant import TenantLimits
from server.settings import Settings, environment_name

ROOT = Path(__file__).parents[2]
FIELDS = {environment_name(field): field for field in Settings.model_fields}
COLUMNS = ["who", "sends", "costs at most", "bounds", "shown by"]
BOUND = re.compile(r"(?P<name>\S+?)(?: = (?P<value>\S+))?")


def rows() -> Iterator[list[str]]:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").partition("\n## Threats\n")[2]
    table = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("|")]
    head, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    assert head == COLUMNS
    yield from lines


ROWS = list(rows())
BOUNDS = sorted({code for row in ROWS for code in re.findall(r"`([^`]+)`", row[3])})
TESTS = sorted({code for row in ROWS for code in re.findall(r"`([^`]+)`", row[4])})


def in_code(name: str) -> Any:
    """The value that the code gives to what a bound names."""
    if name in FIELDS:
        return Settings.model_fields[FIELDS[name]].default
    if name in TenantLimits.model_fields:
        return TenantLimits.model_fields[name].default
    path, _, symbol = name.partition(":")
    assert (ROOT / path).exists(), f"there is no {path}"
    if not symbol:
        return None
    return getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), symbol)


def test_everybody_who_can_send_something_is_in_the_table() -> None:
    named = " ".join(row[0] for row in ROWS)
    for who in ("without a key", "a tenant", "a page", "proxy", "worker", "Redis' password", "checkpoint"):
        assert who in named
    assert all(len(row) == len(COLUMNS) for row in ROWS)
    assert all(row[3] and row[4] for row in ROWS), "no threat without a bound and a test"


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_bound_is_what_the_code_says(bound: str) -> None:
    found = BOUND.fullmatch(bound)
    assert found is not None
    value = in_code(found["name"])
    if found["value"] is not None:
        shown = f'"{value}"' if isinstance(value, str) else str(int(value) if value == int(value) else value)
        assert found["value"].removesuffix(".0") == shown
    else:
        assert not isinstance(value, int | float), "it has a value, which belongs into the table"


@pytest.mark.parametrize("test", TESTS)
def test_a_test_that_is_named_is_there(test: str) -> None:
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in functions


def test_no_number_in_the_table_is_but_in_a_bound() -> None:
    """Those are compared; a number in a sentence would stay when the code changes. Statuses are no bounds."""
    for row in ROWS:
        words = re.sub(r"`[^`]+`|\b503\b", "", " ".join(row))
        assert not re.search(r"\d", words), words
