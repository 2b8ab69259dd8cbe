"""Published checkpoints as models: what is written, and what is refused without a trace."""

import argparse
import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from oar_cli import main
from oar_core import host_memory
from oar_core.errors import WeightsError
from oar_core.host_memory import available_memory
from oar_core.importing.parts import importable
from oar_core.models.base import Features
from oar_core.models.load import FAMILIES, family, load_model
from oar_core.models.model import BACKBONE
from oar_core.models.text_features import build_encoder
from oar_core.order.plan import PlanSpec
from oar_core.sampling.defaults import default_plan, default_sampling
from oar_core.weights import Manifest
from tests.importing.command import CASES, CONFIG, TOKENIZER, Importing, golden_file, listing
from tests.models.folders import CLASS_NAMES
from tests.models.janus.folder import their_key
from tests.models.test_text_features import T5
from tests.models.test_text_features import tokenizer as words_tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=sorted(CASES))
def each(request: pytest.FixtureRequest, tmp_path: Path) -> Importing:
    return Importing(tmp_path, request.param)


@pytest.fixture
def one(tmp_path: Path) -> Importing:
    return Importing(tmp_path, "arpg")


WAYS = {
    "safetensors": lambda job, state: job.safetensors(state),
    "bare": lambda job, state: job.pickled(state),
    "model": lambda job, state: job.pickled({"model": state, "args": argparse.Namespace(lr=1e-4), "steps": 3}),
    "nested": lambda job, state: job.pickled({"state_dict": {"module": state}}),
    "wrapped": lambda job, state: job.pickled({f"module.{key}": value for key, value in state.items()}),
    "legacy": lambda job, state: job.pickled({"model": state}, is_zip=False),
    "fp32": lambda job, state: job.pickled({key: value.float() for key, value in state.items()}),
}


KEPT = [("arpg", way) for way in WAYS] + [(key, way) for key in sorted(CASES) for way in ("safetensors", "model")]


@pytest.mark.parametrize(("key", "way"), sorted(set(KEPT)))
def test_a_checkpoint_becomes_a_model_whatever_it_is_kept_in(tmp_path: Path, key: str, way: str) -> None:
    each = Importing(tmp_path, key)
    state = each.state()
    result = each.run(WAYS[way](each, state), None, "--name", "mine", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["name"], told["folder"]) == ("mine", str(each.weights / "mine"))
    manifest = Manifest.load(each.weights)
    assert manifest.default == "mine"
    folder = manifest.folder("mine")
    model = load_model(folder, "cpu", torch.float32)
    config, native_state = each.case.network
    wanted = native_state({key: value.float() for key, value in state.items()}, config)
    stored = load_file(folder / BACKBONE)
    assert stored.keys() == wanted.keys()
    assert all(torch.equal(stored[key].float(), value) for key, value in wanted.items())
    assert {value.dtype for value in stored.values()} == {torch.float32 if way == "fp32" else torch.bfloat16}
    if each.case.has_classes:
        assert model.encode_prompt("goldfish") == (1,)
        assert model.unconditional_ids == (len(CLASS_NAMES),)
    assert default_plan(model).steps == told["defaults"]["steps"]
    assert default_sampling(model).guidance == told["defaults"]["guidance"]
    card = (folder / "card.md").read_text()
    assert "MIT" in card
    assert "https://huggingface.co/" in card
    assert (folder / BACKBONE).stat().st_mode & 0o444 == 0o444 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_second_model_is_listed_beside_the_first_and_removed_again(one: Importing) -> None:
    assert one.run(golden_file("arpg"), None, "--name", "first").exit_code == 0
    assert one.run(golden_file("arpg"), None, "--name", "second", "--licence", 'mine, "as is"').exit_code == 0
    manifest = Manifest.load(one.weights)
    assert (manifest.default, manifest.models) == ("first", ("first", "second"))
    assert manifest.entries["second"].licence == 'mine, "as is"'

    def oar(*words: str) -> Any:
        return CliRunner().invoke(main, words, env={"OAR_WEIGHTS_DIR": str(one.weights)})

    assert oar("models").stdout.splitlines() == ["* first  MIT", '  second  mine, "as is"']
    assert oar("models", "rm", "third").exit_code == 1
    assert oar("models", "rm", "first").exit_code == 0
    assert not (one.weights / "first").exists()
    assert oar("models").stdout.splitlines() == ['* second  mine, "as is"']
    assert oar("models", "rm", "second").exit_code == 0
    assert os.listdir(one.weights) == []


def test_what_the_config_says_becomes_the_models_own(one: Importing) -> None:
    one.config = {**CONFIG, "defaults": {"steps": 4, "guidance": 2.5}, "example_prompts": ["hen"], "pixel_art": True}
    assert one.run(golden_file("arpg"), None, "--name", "m").exit_code == 0
    model = load_model(one.weights / "m", "cpu", torch.float32)
    assert (model.defaults["steps"], model.defaults["guidance"]) == (4, 2.5)
    assert (model.example_prompts, model.pixel_art) == (("hen",), True)
    assert default_plan(model) == PlanSpec("random", 4, "published")


def test_without_names_classes_have_numbers(one: Importing) -> None:
    one.config = {"backbone": CONFIG["backbone"]}
    assert one.run(golden_file("arpg")).exit_code == 0
    assert load_model(one.weights / "arpg", "cpu", torch.float32).encode_prompt("class 7") == (7,)


# what is refused


def test_another_familys_checkpoint_is_called_by_its_name(each: Importing) -> None:
    other = "lpd" if each.name == "arpg" else "arpg"
    sentence = each.refusal(golden_file(other))
    assert f"is no checkpoint of {each.family}: its keys are those of the backbone of {other}" in sentence
    assert "those of the tokenizer of llamagen_vq" in each.refusal(golden_file(TOKENIZER))
    assert "is no image tokenizer that is known here" in each.refusal(each.golden, golden_file(other))


@pytest.mark.parametrize("key", [key for key in FAMILIES if family(key).importer is None])
def test_a_family_that_offers_no_import_says_so(tmp_path: Path, key: str) -> None:
    sentence = Importing(tmp_path, key).refusal(golden_file("arpg"))
    assert f"checkpoints of family '{key}' cannot be imported; those of {', '.join(importable())} can" in sentence
    sentence = Importing(tmp_path, "diffusion").refusal(golden_file("arpg"))
    assert f"unknown family 'diffusion'; there are {', '.join(importable())}" in sentence


def test_a_missing_tokenizer_is_asked_for(one: Importing) -> None:
    words = one.words(golden_file("arpg"))
    place = words.index("--tokenizer")
    del words[place : place + 2]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "weights.safetensors holds no image tokenizer: --tokenizer names its file" in result.output
    assert listing(one.weights) == []


def test_missing_and_extra_keys_are_named(each: Importing) -> None:
    state, removed = each.state(), each.case.layer
    short = {key: value for key, value in state.items() if key != removed}
    assert f"it has no {removed}" in each.refusal(each.safetensors(short))
    more = {**state, "adapter.weight": torch.zeros(2, 2), "ema.decay": torch.zeros(1)}
    sentence = each.refusal(each.pickled({"model": more}))
    assert "adapter.weight" in sentence
    assert "it also has" in sentence

    def without_a_norm(codes: dict[str, torch.Tensor], key: Callable[[str], str]) -> None:
        del codes[key("encoder.mid.0.norm1.weight")]

    assert "it has no encoder.mid.0.norm1.weight" in each.refusal(*each.with_codes(without_a_norm))


@pytest.mark.parametrize(
    ("kind", "share"),
    [("legacy", 0.6), *((kind, share) for kind in ("safetensors", "zip") for share in (0.0, 0.001, 0.3, 0.999))],
)
def test_a_part_of_a_file_is_called_a_part(one: Importing, kind: str, share: float) -> None:
    state = one.state()
    whole = one.safetensors(state) if kind == "safetensors" else one.pickled(state, is_zip=kind == "zip")
    data = whole.read_bytes()
    whole.write_bytes(data[: int(share * len(data))])
    sentence = one.refusal(whole)
    assert any(words in sentence for words in ("only a part of", "neither a safetensors file nor", "is broken")), (
        sentence
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "pointer of Git LFS"),
        (b"<!doctype html><title>404</title>" * 9, "neither a safetensors file nor a pickled checkpoint"),
        (struct.pack("<Q", 12) + b'{"a":"b"}   ', "its header cannot be read"),
        (struct.pack("<Q", 1 << 60) + b"{" * 40, "neither a safetensors file"),
        (b"PK\x03\x04" + bytes(100), "its end is missing"),
        (b"\x80\x02" + bytes(100), "is broken"),
    ],
)
def test_what_is_no_checkpoint_is_refused(one: Importing, content: bytes, words: str) -> None:
    path = one.folder / "file.pt"
    path.write_bytes(content)
    assert words in one.refusal(path)
    assert words in one.refusal(golden_file("arpg"), path)


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.target}",))


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickle_runs_nothing(one: Importing, is_zip: bool) -> None:
    trace = one.folder / "trace"
    path = one.pickled({"model": one.state(), "evil": Evil(trace)}, is_zip=is_zip)
    sentence = one.refusal(path)
    assert "wants to run posix.system, which is no tensor: it is not read" in sentence
    assert not trace.exists()


def test_a_small_pickle_that_unpacks_to_a_large_one_ends_its_reader_alone(one: Importing) -> None:
    """One number, seen as 64 billion: what is stored again would be all of them."""
    path = one.pickled({"model": {"a": torch.zeros(1).expand(1 << 36)}})
    assert path.stat().st_size < 4096
    assert "unpacks to more memory than a file of its size may take" in one.refusal(path)


def test_what_holds_no_tensors_is_refused(one: Importing) -> None:
    assert "holds no tensors" in one.refusal(one.pickled({"model": {}, "epoch": 3}))
    assert "holds no tensors" in one.refusal(one.pickled([1, 2]))
    assert "its keys are of no family that is known here (a)" in one.refusal(one.pickled({"a": torch.zeros(2)}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.float8_e4m3fn, torch.bool])
def test_numbers_of_another_format_are_refused(each: Importing, dtype: torch.dtype) -> None:
    state = each.state()
    head = each.case.head
    state[head] = state[head].to(dtype)
    sentence = each.refusal(each.safetensors(state))
    assert f"{head} holds" in sentence
    assert "weights are F32, F16, BF16" in sentence


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(each: Importing, value: float) -> None:
    state, head = each.state(), each.case.head
    state[head][3, 5] = value
    assert f"{head} of checkpoint.safetensors holds 1 numbers that are not finite" in each.refusal(
        each.safetensors(state)
    )

    def spoil(codes: dict[str, torch.Tensor], key: Callable[[str], str]) -> None:
        codes[key("decoder.conv_out.bias")][:2] = value

    sentence = each.refusal(*each.with_codes(spoil))
    assert "decoder.conv_out.bias of codes.safetensors holds 2 numbers that are not finite" in sentence


def test_a_tokenizer_of_another_vocabulary_is_refused(each: Importing) -> None:
    def cut(codes: dict[str, torch.Tensor], key: Callable[[str], str]) -> None:
        codes[key("quantize.embedding.weight")] = codes[key("quantize.embedding.weight")][:32].clone()

    sentence = each.refusal(*each.with_codes(cut))
    assert "predicts 64 codes and codes.safetensors has 32: it is another model's tokenizer" in sentence


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"tokenizer": {"grid": [8, 8]}}, "the backbone's grid is 4 x 4, and the tokenizer's config says 8 x 8"),
        ({"backbone": {"num_heads": 5, "grid": [4, 4]}}, "not a multiple of"),
        ({"backbone": {"num_heads": 4, "grid": [4, 4], "width": 16}}, "and the config says 16"),
        ({"backbone": {}}, "num_heads, which no tensor tells"),
        ({"classes": ["one"]}, "classes"),
        ({"defaults": {"steps": 17}}, "the defaults do not fit the model: steps is 17"),
        ({"defaults": {"order": "zigzag"}}, "the defaults do not fit the model: order 'zigzag'"),
        ({"defaults": {"speed": 1}}, "there is no option speed"),
        ({"colour": 1}, "has no entry colour"),
        ({"backbone": 3}, "entry backbone is no object"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(each: Importing, config: dict[str, Any], words: str) -> None:
    each.config = {**each.case.config, **config}
    assert words in each.refusal(each.golden)


def test_a_grid_that_does_not_fit_the_positions_is_refused(tmp_path: Path) -> None:
    job = Importing(tmp_path, "lpd", {**CONFIG, "backbone": {"num_heads": 4, "grid": [2, 4]}})
    assert "16 positions, which are no grid of 2 x 4" in job.refusal(golden_file("lpd"))


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_config_that_is_no_object_is_refused(one: Importing, text: str) -> None:
    words = one.words(golden_file("arpg"))
    (one.folder / "config.json").write_text(text)
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "config.json" in result.output


def test_a_name_that_is_taken_or_none_is_refused(one: Importing) -> None:
    assert one.run(golden_file("arpg"), None, "--name", "m").exit_code == 0
    assert "is there already; --name another, or `oar models rm m`" in one.refusal(
        golden_file("arpg"), None, "--name", "m"
    )
    for name in ("", "a.b", "../x", "A B", "-x", "x" * 65):
        assert "is no model's name" in one.refusal(golden_file("arpg"), None, "--name", name)


def test_a_manifest_that_cannot_be_read_is_told_before_anything_is_made(one: Importing) -> None:
    one.weights.mkdir()
    (one.weights / "manifest.toml").write_text("default = 3 4")
    assert "is no TOML" in one.refusal(golden_file("arpg"))


def test_files_that_are_not_there_are_named(one: Importing) -> None:
    assert "there is no file" in one.refusal(one.folder / "nothing.pt")
    assert "is a folder; name the file in it" in one.refusal(one.folder)
    assert "is no file of a repository" in one.refusal("hf:nothing.pt")
    assert "is no file of a repository" in one.refusal("hf:a/b/../c")


def test_several_files_are_one_checkpoint(one: Importing) -> None:
    keys = sorted(state := one.state())
    halves = [
        one.safetensors({key: state[key] for key in part}, f"{number}.safetensors")
        for number, part in enumerate((keys[::2], keys[1::2]))
    ]
    assert one.run(halves[0], None, "--checkpoint", str(halves[1]), "--name", "both").exit_code == 0
    sentence = one.refusal(halves[0], None, "--checkpoint", str(halves[0]), "--name", "twice")
    assert "two files of" in sentence


# prompts


def published_encoder(folder: Path, **changes: Any) -> Path:
    """A tiny T5 as `transformers` keeps it, with a decoder that is of no use here."""
    pytest.importorskip("transformers", reason="the T5 encoder needs the package transformers (text-features)")
    folder.mkdir()
    torch.manual_seed(0)
    tensors = {key: value.clone() for key, value in build_encoder(T5).state_dict().items()}
    tensors |= {"decoder.final_layer_norm.weight": torch.ones(32), "lm_head.weight": torch.ones(7, 32)}
    save_file(tensors | changes, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "t5", **T5}))
    words_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def test_an_encoder_s_folder_reads_prompts(tmp_path: Path) -> None:
    job = Importing(tmp_path, "llamagen_t2i")
    encoder = published_encoder(tmp_path / "t5")
    assert job.run(job.golden, None, "--text", str(encoder), "--name", "m").exit_code == 0
    model = load_model(Manifest.load(job.weights).folder("m"), "cpu", torch.float32)
    assert model.conditioner.kind == "text"
    prefix = model.encode_prompt("a hen on grass")
    assert isinstance(prefix, Features)
    whole = build_encoder(T5).eval()
    kept = load_file(encoder / "model.safetensors")
    whole.load_state_dict({key: value for key, value in kept.items() if not key.startswith(("decoder", "lm_head"))})
    with torch.inference_mode():
        wanted = whole(input_ids=torch.tensor([[3, 4, 5, 6, 1]])).last_hidden_state[0]
    torch.testing.assert_close(prefix.values, wanted)


def test_an_encoder_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    job = Importing(tmp_path, "llamagen_t2i")

    def refused(encoder: Path) -> str:
        return job.refusal(job.golden, None, "--text", str(encoder))

    wrong = published_encoder(tmp_path / "nan", **{"shared.weight": torch.full((7, 32), float("nan"))})
    assert "shared.weight of model.safetensors holds numbers that are not finite" in refused(wrong)
    encoder = published_encoder(tmp_path / "t5")
    (encoder / "config.json").write_text(json.dumps({**T5, "d_model": 64}))
    assert "the text encoder's features are 64 wide, and the network reads 32" in refused(encoder)
    (encoder / "config.json").write_text(json.dumps({**T5, "num_layers": 3}))
    assert "does not fit its config: encoder.block.2" in refused(encoder)
    monkeypatch.setattr(host_memory, "available_memory", lambda: 1000)
    assert "the text encoder takes" in refused(encoder)
    (encoder / "model.safetensors").unlink()
    assert "*.safetensors is missing" in refused(encoder)


def test_a_family_of_classes_reads_no_text(one: Importing) -> None:
    assert "draws classes, and reads no text" in one.refusal(one.golden, None, "--text", str(one.golden))
    job = Importing(one.folder, "llamagen")
    assert "draws classes, and reads no text" in job.refusal(job.golden, None, "--text", str(job.golden))


def test_a_prompt_s_text_tokenizer_is_needed_and_checked(tmp_path: Path) -> None:
    job = Importing(tmp_path, "janus")
    words = [word for word in job.words(job.golden) if word not in {"--text", str(job.text_tokenizer())}]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "--text names its tokenizer.json" in result.output
    assert "is no text tokenizer of Janus" in job.refusal(job.golden, None, "--text", str(golden_file("arpg")))


def test_a_raster_family_s_defaults_are_raster(tmp_path: Path) -> None:
    for name in ("llamagen", "llamagen_t2i", "janus"):
        job = Importing(tmp_path, name)
        for defaults in ({"steps": 8}, {"order": "random"}, {"group_sizes": "cosine"}):
            job.config = {**job.case.config, "defaults": defaults}
            assert "it writes in order raster alone, in 16 steps" in job.refusal(job.golden)


def test_randar_may_have_the_maskgit_tokenizer(tmp_path: Path) -> None:
    job = Importing(tmp_path, "randar")
    codes = job.pickled(load_file(golden_file("vq_maskgit")), "codes.bin")
    assert job.run(job.golden, codes, "--name", "m").exit_code == 0
    model = load_model(Manifest.load(job.weights).folder("m"), "cpu", torch.float32)
    assert model.image_size == (8, 8)
    state = load_file(golden_file("vq_maskgit"))
    found = load_file(job.weights / "m" / "tokenizer.safetensors")
    assert all(torch.equal(found[key].float(), value.float()) for key, value in state.items())
    state["quantize.embedding.weight"] = state["quantize.embedding.weight"][:32].clone()
    sentence = job.refusal(job.golden, job.safetensors(state, "other.safetensors"))
    assert "predicts 64 codes and other.safetensors has 32" in sentence


# room


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(one: Importing, monkeypatch: Any) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=65 << 20))
    sentence = one.refusal(golden_file("arpg"))
    assert "68.2 MB are left on the disk" in sentence
    assert "nothing was written" in sentence


def test_a_disk_that_fills_up_leaves_nothing(one: Importing) -> None:
    """A bound of the size of any file stands in for a full disk: both end a write with an error of the system."""
    one.weights.mkdir()
    done = run_bounded(one.words(golden_file("arpg")), resource.RLIMIT_FSIZE, 200_000)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert os.listdir(one.weights) == []


def test_too_little_memory_is_counted_before_anything_is_read(each: Importing) -> None:
    """Files with holes: of 64 GB of weights, a disk keeps the header alone."""
    available = available_memory()
    if available is None or available > 100 << 30:
        pytest.skip("this system has, or says, no such bound")
    state = each.state()
    rows = (64 << 30) // (2 * state[each.case.head].shape[1])
    # As many codes as that, in whichever tables of the family have a row for each.
    huge = {key: (rows + len(state[key]) - 64, *state[key].shape[1:]) for key in each.case.tables}
    table = "quantize.embedding.weight"
    codes = load_file(golden_file(TOKENIZER))
    more = {table: (rows, codes[table].shape[1])}
    tokenizer = None
    if each.case.holds_tokenizer:
        huge |= {their_key(name): shape for name, shape in more.items()}
    else:
        tokenizer = with_holes(each.folder / "codes.safetensors", codes, more)
    sentence = each.refusal(with_holes(each.folder / "huge.safetensors", state, huge), tokenizer)
    assert "of memory, and" in sentence
    assert "nothing was read" in sentence


def test_memory_is_counted_by_what_is_available(one: Importing, monkeypatch: Any) -> None:
    monkeypatch.setattr(host_memory, "available_memory", lambda: 1_000_000)
    sentence = one.refusal(golden_file("arpg"))
    assert "importing arpg takes" in sentence
    assert "of memory, and 1.0 MB are available; nothing was read" in sentence
    monkeypatch.setattr(host_memory, "available_memory", lambda: None)
    assert one.run(golden_file("arpg")).exit_code == 0
    monkeypatch.setattr(host_memory, "available_memory", lambda: 1_000)
    with pytest.raises(WeightsError, match=r"arpg takes .* of memory, and 0\.0 MB are available"):
        load_model(one.weights / "arpg", "cpu", torch.float32)


def with_holes(path: Path, state: dict[str, torch.Tensor], shapes: dict[str, tuple[int, ...]]) -> Path:
    """A safetensors file of bf16 tensors of these shapes, and of the others of a state; nothing of it is written."""
    header: dict[str, Any] = {}
    end = 0
    for key in sorted(state):
        shape = shapes.get(key, tuple(state[key].shape))
        size = 2 * int(torch.Size(shape).numel())
        header[key] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def run_bounded(words: list[str], kind: int, limit: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "oar_cli", *words]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(kind, (limit, limit)),
    )
