"""Random networks of the published L sizes, 256 x 256 pixels: memory, disk, time and refusals at their real size."""

import json
import resource
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from oar_core.models.load import load_model
from oar_core.models.model import BACKBONE
from oar_core.weights import Manifest
from tests.importing.command import TOKENIZER, Importing, golden_file, listing
from tests.models.folders import BACKBONES

ROOT = Path(__file__).parents[2]
WIDTH, CODES, CLASSES, POSITIONS = 1024, 16_384, 1000, 256
MAX_BYTES = 6 << 30

pytestmark = pytest.mark.slow


def block(prefix: str, names: Mapping[str, tuple[int, ...]], count: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.{layer}.{name}": shape for layer in range(count) for name, shape in names.items()}


def arpg() -> dict[str, tuple[int, ...]]:
    d, f = WIDTH, 2816
    ffn = {"ffn.w1.weight": (f, d), "ffn.w2.weight": (d, f), "ffn.w3.weight": (f, d)}
    norms = {"attn_norm.weight": (d,), "ffn_norm.weight": (d,)}
    shared = {"attn.to_q.weight": (d, d), "attn.proj.weight": (d, d), **ffn, **norms}
    own = {**shared, "attn.to_k.weight": (d, d), "attn.to_v.weight": (d, d)}
    return {
        "embeddings.weight": (CODES + CLASSES + 3, d),
        "layers.norm.weight": (d,), "layers.to_k.weight": (d, d), "layers.to_v.weight": (d, d),
        "norm.weight": (d,), "head.weight": (CODES, d),
        **block("layers.self_dec", own, 12), **block("layers.cross_dec", shared, 12),
    }  # fmt: skip


def lpd() -> dict[str, tuple[int, ...]]:
    d = WIDTH
    parts = {"norm1": (d,), "norm2": (d,), "attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}  # fmt: skip # noqa: E501
    inner = {f"{name}.weight": shape for name, shape in parts.items()}
    inner |= {f"{name}.bias": shape[:1] for name, shape in parts.items()}
    return {
        "class_emb.weight": (CLASSES, d), "fake_latent": (1, d), "token_emb.weight": (CODES, d),
        "mask_token": (1, 1, d),
        "pos_embed": (1, POSITIONS + 1, d), "z_proj_ln.weight": (d,), "z_proj_ln.bias": (d,),
        "norm.weight": (d,), "norm.bias": (d,), "head.weight": (CODES, d), **block("blocks", inner, 24),
    }  # fmt: skip


SHAPES = {"arpg": arpg, "lpd": lpd}
MILLIONS = {"arpg": 319.8, "lpd": 337.2}


def write_random(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """bf16 numbers of one random row of a million, over and over."""
    noise = (torch.randn(1 << 20, generator=torch.Generator().manual_seed(7)) * 0.02).bfloat16()
    data = noise.view(torch.uint8).numpy().tobytes()
    header, end = {}, 0
    for key, shape in shapes.items():
        size = 2 * int(torch.Size(shape).numel())
        header[key] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            size = 2 * int(torch.Size(shape).numel())
            for start in range(0, size, len(data)):
                file.write(data[: size - start])


def codes_of_published_size(folder: Path) -> Path:
    """The golden tokenizer with a codebook of the published size."""
    state = load_file(golden_file(TOKENIZER))
    table = state["quantize.embedding.weight"]
    state["quantize.embedding.weight"] = table.repeat(CODES // len(table), 1)
    return Importing(folder, "").safetensors(state, "codes.safetensors")


@pytest.fixture(params=sorted(BACKBONES))
def large(request: pytest.FixtureRequest, tmp_path: Path) -> Importing:
    if request.param not in SHAPES:
        pytest.skip("its published shapes are not written down here")
    job = Importing(tmp_path, request.param, {})
    write_random(tmp_path / "large.safetensors", SHAPES[request.param]())
    return job


def bounded(words: list[str], limit: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "oar_cli", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )


def test_a_network_of_the_published_size_is_imported_and_refused_as_a_small_one(large: Importing) -> None:
    path, codes = large.folder / "large.safetensors", codes_of_published_size(large.folder)
    done = bounded(large.words(path, codes, "--name", "large", "--json"), 16 << 30)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert round(told["num_parameters"] / 1e6, 1) == pytest.approx(MILLIONS[large.family], abs=0.2)
    assert (large.weights / "large" / BACKBONE).stat().st_size == pytest.approx(2 * told["num_parameters"], rel=0.01)
    model = load_model(Manifest.load(large.weights).folder("large"), "cpu", torch.float32)
    assert model.grid == (16, 16)
    assert model.encode_prompt("golden retriever") == (207,)
    # Too little memory is said before anything is read, and nothing is left.
    before = [name for name, _ in listing(large.weights)]
    refused = bounded(large.words(path, codes, "--name", "other"), 3 << 30)
    assert refused.returncode == 1
    assert "of memory, and" in refused.stderr.splitlines()[-1]
    assert [name for name, _ in listing(large.weights)] == before
    # A file that ends in the middle.
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    cut = bounded(large.words(path, codes, "--name", "other"), 16 << 30)
    assert "is only a part of a safetensors file" in cut.stderr.splitlines()[-1]
    assert [name for name, _ in listing(large.weights)] == before
