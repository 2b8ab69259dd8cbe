"""The models of a worker: loaded from the manifest, checked, warmed up."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from oar_core.engine.calibration import Calibration, words
from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.models.load import load_model
from oar_core.models.model import Model, in_number_format
from oar_core.order.plan import PlanSpec
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.weights import Manifest
from oar_wire.events import Fingerprint
from oar_wire.model import GenerationDefaults, ModelInfo
from server.settings import Settings

logger = logging.getLogger(__name__)

WARM_UP_STEPS = 2

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


@dataclass(frozen=True)
class LoadedModel:
    name: str
    pipeline: Model
    engine: Engine
    slots: int
    created: int  # Unix seconds
    licence: str
    load_seconds: float
    mode: Literal["batched", "deterministic"] = "batched"

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(
            model_hash=self.pipeline.model_hash,
            torch=torch.__version__,
            device=str(self.pipeline.device),
            dtype=self.dtype,
            mode=self.mode,
        )

    @property
    def dtype(self) -> str:
        return str(self.pipeline.dtype).removeprefix("torch.")

    @property
    def num_tokens(self) -> int:
        height, width = self.pipeline.grid
        return height * width

    def info(self) -> ModelInfo:
        defaults = {key: value for key, value in self.pipeline.defaults.items() if value is not None}
        defaults.setdefault("steps", self.num_tokens)
        return ModelInfo(
            name=self.name,
            grid=self.pipeline.grid,
            image_size=self.pipeline.image_size,
            orders=self.pipeline.orders,
            group_sizes=self.pipeline.group_sizes,
            condition=self.pipeline.conditioner.kind,
            defaults=GenerationDefaults.model_validate(defaults),
            max_prompt_tokens=self.pipeline.max_prompt_tokens,
            can_revise=self.pipeline.backbone.spec.can_revise,
            has_vocabulary=self.pipeline.vocabulary is not None,
            example_prompts=self.pipeline.example_prompts,
            pixel_art=self.pipeline.pixel_art,
            model_hash=self.pipeline.model_hash,
            created=self.created,
            licence=self.licence,
        )

    def warm_up(self) -> None:
        """One small picture through all that a job needs, so that the first job is not the slow one."""
        plan, sampling = PlanSpec("raster", min(WARM_UP_STEPS, self.num_tokens)), SamplingParams(guidance=2.0)
        ids = self.pipeline.unconditional_ids
        self.engine.add(SequenceRequest("warm-up", ids, 0, 0, plan, sampling))
        while self.engine.has_work:
            self.engine.step()
        token_ids = torch.zeros(1, self.num_tokens, dtype=torch.long)
        self.pipeline.decode(token_ids)
        self.pipeline.decode_partial(token_ids, torch.zeros(1, self.num_tokens, dtype=torch.bool))


def load_models(settings: Settings) -> list[LoadedModel]:
    """The wanted models, the default one first. Raises WeightsError, and ConfigError where slots exceed the memory."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    manifest = Manifest.load(settings.weights_dir)
    device = _device(settings.device)
    return [_load(name, manifest, device, settings) for name in settings.models or (manifest.default,)]


def _load(name: str, manifest: Manifest, device: str, settings: Settings) -> LoadedModel:
    start = time.monotonic()
    folder = manifest.folder(name)
    pipeline, least_packed_rows = _pipeline(folder, device, settings)
    engine = Engine(
        pipeline.backbone,
        pipeline.unconditional_ids,
        EngineConfig(
            settings.slots,
            max_cache_bytes=settings.cache_mib << 20 or None,
            max_prefill=settings.prefill_tokens,
            is_deterministic=settings.deterministic,
            least_packed_rows=least_packed_rows,
            is_static=settings.cuda_graphs and device.startswith("cuda"),
            is_compiled=settings.compile,
        ),
    )
    created = int((folder / "config.json").stat().st_mtime)
    licence = manifest.entries[name].licence
    mode = "deterministic" if settings.deterministic else "batched"
    model = LoadedModel(name, pipeline, engine, settings.slots, created, licence, load_seconds=0.0, mode=mode)
    model.warm_up()
    seconds = time.monotonic() - start
    logger.info("model loaded model=%s hash=%s device=%s seconds=%.2f", name, pipeline.model_hash, device, seconds)
    return replace(model, load_seconds=seconds)


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def _pipeline(folder: Path, device: str, settings: Settings) -> tuple[Model, int | None]:
    """A model in its number format, and from how many rows on its weights are packed, where that was measured. Sets the
    number of threads."""
    wanted = _DTYPES.get(settings.dtype, torch.bfloat16 if device.startswith("cuda") else torch.float32)
    measures = settings.calibrate or settings.dtype == "fastest"
    if device != "cpu" or settings.deterministic or not measures:
        return load_model(folder, device, wanted), None
    pipeline = load_model(folder, device, torch.float32)
    choices = _DTYPES["float32"], _DTYPES["bfloat16"]
    # Of int8, layers of fp32 tell how many threads are of use.
    dtypes = choices if settings.dtype == "fastest" else (torch.float32 if wanted is torch.int8 else wanted,)
    best = Calibration.stored(settings.data_dir / "calibration", pipeline.backbone, dtypes, _thread_counts(settings))
    torch.set_num_threads(best.threads)
    logger.info("calibrated model=%s %s", pipeline.name, words(best))
    dtype = wanted if wanted is torch.int8 else _DTYPES[best.dtype]
    in_number_format(pipeline.backbone, dtype)
    return replace(pipeline, dtype=dtype), best.least_packed_rows


def _thread_counts(settings: Settings) -> tuple[int, ...]:
    """One, two, four ... up to a worker's share of what torch would take; or the number that was asked for."""
    if settings.threads:
        return (settings.threads,)
    share = max(1, torch.get_num_threads() // settings.workers)
    return (*(count for count in (1 << power for power in range(share.bit_length())) if count < share), share)
