"""Chaos: `make chaos` runs it and ends in one JSON line with the figures. OAR_CHAOS_SCALE=1 is the full run."""

import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from oar_core.models.load import load_model
from tests.chaos.harness import SCALE, Atelier, House, Nursery
from tests.server.tiny import NAME

FIGURES: dict[str, Any] = {}
STARTED = time.monotonic()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/chaos" in item.path.as_posix():
            item.add_marker(pytest.mark.chaos)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    FIGURES["passed"] = len(terminalreporter.stats.get("passed", ()))
    FIGURES["failed"] = len(terminalreporter.stats.get("failed", ())) + len(terminalreporter.stats.get("error", ()))


def pytest_unconfigure() -> None:
    """The last line of all."""
    if len(FIGURES) > 2:
        line = {"scale": SCALE, "seconds": round(time.monotonic() - STARTED, 1), **FIGURES}
        sys.stdout.write(f"{json.dumps(line)}\n")
        sys.stdout.flush()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_inherited_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)


@pytest.fixture(scope="session")
def figures() -> dict[str, Any]:
    return FIGURES


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery") / "workers.log")
    yield nursery
    nursery.close()


@pytest.fixture
async def house(tmp_path: Path, weights_dir: Path, nursery: Nursery) -> AsyncIterator[House]:
    house = House(tmp_path, weights_dir, nursery)
    yield house
    await house.close()


@pytest.fixture
def atelier(weights_dir: Path) -> Atelier:
    return Atelier(load_model(weights_dir / NAME, "cpu", torch.float32))
