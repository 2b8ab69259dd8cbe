"""A model's folder, made from a published checkpoint and an image tokenizer: whole, or not at all."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError

from oar_core.errors import ConfigError, LibraryError, WeightsError, check_options
from oar_core.host_memory import check_memory
from oar_core.importing.card import Origins, write_card
from oar_core.importing.checkpoint import CheckpointFile, open_checkpoint
from oar_core.importing.parts import ImportedPart, check_family, find_backbone, find_tokenizer, holds_tokenizer
from oar_core.importing.source import Fetched, check_disk, fetch, fetch_text
from oar_core.models.base import Backbone, BackboneSpec, Conditioner, ImageTokenizer
from oar_core.models.classes import ClassConditioner, class_names
from oar_core.models.importer import Publication
from oar_core.models.load import FORMAT, conditioner_key
from oar_core.models.model import BACKBONE, CONFIG, TOKENIZER
from oar_core.order.plan import CONSTANT, RASTER, PlanSpec
from oar_core.weights import MANIFEST, Manifest, add_model, file_digest
from oar_wire.options import model_options

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
GIVEN = ("backbone", "tokenizer", "defaults", "classes", "example_prompts", "pixel_art")


@dataclass(frozen=True)
class ImportRequest:
    """A checkpoint to import. Sources are paths or `hf:OWNER/REPO/FILE`; no tokenizer: the checkpoint holds it.

    `given` is what files cannot tell, as entries of a model's config: sizes of the `backbone` and the `tokenizer`,
    `defaults` that differ from the published recipe, names of the `classes`.
    """

    family: str
    checkpoint: Sequence[str]
    tokenizer: Sequence[str]
    weights_dir: Path
    text: str | None = None  # a text tokenizer's file, for families that read prompts
    name: str | None = None
    licence: str | None = None
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        unknown = sorted(set(self.given) - set(GIVEN))
        if unknown:
            raise ConfigError(f"the config has no entry {', '.join(unknown)}; there are {', '.join(GIVEN)}")
        for name in ("backbone", "tokenizer", "defaults"):
            if not isinstance(self.given.get(name, {}), Mapping):
                raise ConfigError(f"the config's entry {name} is no object")
        if self.name is not None and not NAME.fullmatch(self.name):
            raise ConfigError(
                f"{self.name!r} is no model's name: 1 to 64 of a-z, 0-9, - and _, a letter or digit first"
            )


@dataclass(frozen=True)
class Imported:
    name: str
    title: str
    folder: Path
    licence: str
    defaults: Mapping[str, Any]
    num_parameters: int  # of the backbone
    notice: str = ""


def import_model(request: ImportRequest, report: Callable[[str], None]) -> Imported:
    """Makes the folder and lists it in the manifest. `report` is told what is going on. Raises ConfigError and
    WeightsError, and then nothing was written."""
    importer = check_family(request.family)
    report("getting the files")
    checkpoint = [fetch(source) for source in request.checkpoint]
    tokenizer = [fetch(source) for source in request.tokenizer]
    text = None if request.text is None else fetch_text(request.text)
    weights_dir = request.weights_dir
    _check_manifest(weights_dir)
    try:
        weights_dir.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=weights_dir, prefix=".import.") as scratch, ExitStack() as stack:
            opened = _open(checkpoint, Path(scratch) / "a", stack, importer.drawn_with)
            opened_tokenizer = _open(tokenizer, Path(scratch) / "b", stack) if tokenizer else opened
            draft = Draft.of(request, opened, opened_tokenizer, text)
            draft.check_space(weights_dir)
            report(f"writing {draft.name}")
            folder = Path(scratch) / "model"
            draft.write(folder, Origins(checkpoint, tokenizer), report)
            return draft.publish(folder, weights_dir)
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise WeightsError(f"{weights_dir} cannot be written: {why}; nothing was imported") from error


def _check_manifest(weights_dir: Path) -> None:
    """Checks that the manifest can be added to, before anything is made. Raises WeightsError."""
    if (weights_dir / MANIFEST).exists():
        Manifest.load(weights_dir)


def _open(files: Sequence[Fetched], scratch: Path, stack: ExitStack, first: str = "") -> CheckpointFile:
    """Pickles are stored again in `scratch`, which is on the disk of the weights."""
    scratch.mkdir()
    return stack.enter_context(open_checkpoint([file.path for file in files], scratch, first))


@dataclass(frozen=True)
class Draft:
    """A model whose parts fit each other, before any number was read."""

    name: str
    publication: Publication
    licence: str
    backbone: ImportedPart
    tokenizer: ImportedPart
    conditioner: Conditioner
    config: dict[str, Any]
    grid: tuple[int, int]

    @classmethod
    def of(
        cls, request: ImportRequest, checkpoint: CheckpointFile, tokenizer: CheckpointFile, text: Fetched | None
    ) -> "Draft":
        """Raises ConfigError, WeightsError."""
        given = request.given
        partner = check_family(request.family).partner
        told = partner.backbone(tokenizer.shapes) if partner else {}
        backbone, network = find_backbone(request.family, checkpoint, {**told, **given.get("backbone", {})})
        grid = network.spec.grid
        told = partner.tokenizer(tokenizer.shapes, backbone.config) if partner else {}
        asked = {**told, **given.get("tokenizer", {})}
        if tuple(asked.get("grid", grid)) != grid:
            raise WeightsError(
                f"the backbone's grid is {_by(grid)}, and the tokenizer's config says {_by(asked['grid'])}"
            )
        if not request.tokenizer and not holds_tokenizer(tokenizer):
            raise ConfigError(f"{checkpoint.name} holds no image tokenizer: --tokenizer names its file")
        codes, decoder = find_tokenizer(tokenizer, {**asked, "grid": grid})
        _check_together(checkpoint, network, tokenizer, decoder)
        assert backbone.importer.publication is not None, "a backbone's importer writes its card"
        publication = backbone.importer.publication(backbone.config)
        name = request.name or _usual_name(publication)
        defaults = {**publication.defaults, **given.get("defaults", {})}
        _check_defaults(defaults, network.spec)
        conditioner = _conditioner(backbone, network, given, text)
        config = {
            "format": FORMAT,
            "family": backbone.key,
            "name": name,
            "backbone": backbone.config,
            "tokenizer": {"family": codes.key, **codes.config},
            "conditioner": conditioner_key(conditioner),
            "defaults": defaults,
            "example_prompts": list(given.get("example_prompts", publication.example_prompts))
            or _examples(conditioner),
            "pixel_art": bool(given.get("pixel_art", False)),
        }
        licence = request.licence or publication.licence
        return cls(name, publication, licence, backbone, codes, conditioner, config, grid)

    def check_space(self, weights_dir: Path) -> None:
        """Raises WeightsError where the name is taken, or memory or disk are too small."""
        folder = weights_dir / self.name
        if folder.exists():
            raise WeightsError(f"{folder} is there already; --name another, or `oar models rm {self.name}`")
        check_memory(max(self.backbone.memory, self.tokenizer.memory), f"importing {self.name}")
        check_disk(weights_dir, self.backbone.disk + self.tokenizer.disk, self.name)

    def write(self, folder: Path, origins: Origins, report: Callable[[str], None]) -> None:
        """Raises WeightsError for tensors that do not fit."""
        folder.mkdir()
        self.backbone.save(folder / BACKBONE)
        report("writing its image tokenizer")
        self.tokenizer.save(folder / TOKENIZER)
        self.conditioner.save(folder)
        (folder / CONFIG).write_text(json.dumps(self.config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        write_card(folder, self.publication, self.licence, self.config, self.grid, origins)
        readable = (folder / CONFIG).stat().st_mode  # by whom the umask says; safetensors writes for the owner alone
        for path in folder.iterdir():
            path.chmod(readable)

    def publish(self, folder: Path, weights_dir: Path) -> Imported:
        """Moves the folder to its place in one step, and lists it."""
        target = weights_dir / self.name
        digests = {
            path.name: file_digest(path) for path in folder.iterdir() if path.suffix in {".json", ".safetensors"}
        }
        folder.rename(target)
        try:
            add_model(weights_dir, self.name, self.licence, digests)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        return Imported(
            self.name,
            self.publication.title,
            target,
            self.licence,
            self.config["defaults"],
            self.backbone.num_parameters,
            self.publication.notice,
        )


def _check_together(
    checkpoint: CheckpointFile, backbone: Backbone, codes: CheckpointFile, tokenizer: ImageTokenizer
) -> None:
    """Raises WeightsError."""
    if tokenizer.vocab_size != backbone.spec.vocab_size:
        raise WeightsError(
            f"{checkpoint.name} predicts {backbone.spec.vocab_size} codes and {codes.name} has {tokenizer.vocab_size}:"
            " it is another model's tokenizer"
        )
    if tokenizer.grid != backbone.spec.grid:
        raise WeightsError(
            f"{checkpoint.name} has a grid of {_by(backbone.spec.grid)} and {codes.name} one of {_by(tokenizer.grid)}"
        )


def _check_defaults(defaults: Mapping[str, Any], spec: BackboneSpec) -> None:
    """Raises ConfigError for options that there are not, and values that the model cannot be asked for."""
    unknown = sorted(set(defaults) - {option.name for option in model_options()})
    if unknown:
        raise ConfigError(f"there is no option {', '.join(unknown)} for a default")
    try:
        check_options(defaults)
        plan = PlanSpec.of(defaults)
        plan.check_fits(spec.num_tokens)
        sizes = spec.fixed_sizes
        if sizes is not None and (plan.order, plan.steps, plan.group_sizes) != (RASTER, len(sizes), CONSTANT):
            raise ConfigError(f"it writes in order {RASTER} alone, in {len(sizes)} steps of {CONSTANT} groups")
    except (LibraryError, TypeError) as error:
        raise ConfigError(f"the defaults do not fit the model: {error}") from error


def _conditioner(part: ImportedPart, backbone: Backbone, given: Mapping[str, Any], text: Fetched | None) -> Conditioner:
    """Classes, unless the family makes another. Raises ConfigError, WeightsError."""
    if part.importer.conditioner is not None:
        made = part.importer.conditioner(part.config, None if text is None else text.path)
        if made is not None:
            if "classes" in given:
                raise ConfigError(f"this model of {part.key} reads prompts: the config's classes have no place in it")
            return made
    if text is not None:
        raise ConfigError(f"{part.key} draws classes, and reads no text: --text has no place in it")
    count = backbone.spec.condition_vocab - 1
    names = given.get("classes") or class_names(count)
    if len(names) != count or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"the config names {len(names)} classes, and the checkpoint has {count}")
    return ClassConditioner.of(names, count)


def _examples(conditioner: Conditioner) -> list[str]:
    if not isinstance(conditioner, ClassConditioner):
        return []
    names = conditioner.classes.names
    needed = [name for name in ("golden retriever", "macaw", "lakeside", "volcano") if name in names]
    return needed or list(names[:2])


def _usual_name(publication: Publication) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", publication.title.lower()).strip("-")


def _by(grid: Sequence[int]) -> str:
    return " x ".join(map(str, grid))
