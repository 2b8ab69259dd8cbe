"""The models of a worker: loaded from the manifest, checked, warmed up."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from oar_core.engine.calibration import Calibration, words
from oar_core.engine.config import EngineConfig
from oar_core.engine.decoder_calibration import DecoderCalibration
from oar_core.engine.engine import Engine
from oar_core.engine.threads import ThreadGuard, usable_cores
from oar_core.models.base import ImageTokenizer
from oar_core.models.frames import FramesSpec
from oar_core.models.load import load_decoder, load_frame_model, load_model, makes_frames
from oar_core.models.model import BACKBONE, FrameModel, Model, in_number_format
from oar_core.nn.packed import Packing
from oar_core.nn.rounded_conv import has_bf16
from oar_core.order.plan import PlanSpec
from oar_core.order.rules import RULES
from oar_core.sampling.frames import FrameRequest
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.weights import FP32_BYTES, Manifest, count_numbers
from oar_wire.events import Fingerprint
from oar_wire.model import GenerationDefaults, LayoutInfo, ModelInfo
from server.settings import Settings

logger = logging.getLogger(__name__)

WARM_UP = "warm-up"  # id of a sequence
WARM_UP_STEPS = 2
LARGE_NETWORK = 256 << 20  # bytes in fp32; the weights of a small one stay in the processor's caches

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


@dataclass(frozen=True)
class LoadedModel:
    name: str
    pipeline: Model | FrameModel
    engine: Engine
    slots: int
    created: int  # Unix seconds
    licence: str
    load_seconds: float
    mode: Literal["batched", "deterministic"] = "batched"
    threads: str = ""  # as `_threads` says

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(
            model_hash=self.pipeline.model_hash,
            torch=torch.__version__,
            device=str(self.pipeline.device),
            dtype=self.dtype if self.pipeline.decode_dtype is torch.float32 else f"{self.dtype}, decoded in bfloat16",
            mode=self.mode,
            kernels="; ".join(filter(None, (*_machine(self.pipeline.device), self.threads, self.engine.kernels))),
        )

    @property
    def dtype(self) -> str:
        return str(self.pipeline.dtype).removeprefix("torch.")

    @property
    def drawing(self) -> Model:
        """Drawing model, for what is asked of models of tokens alone."""
        assert isinstance(self.pipeline, Model), f"{self.name} makes no pictures"
        return self.pipeline

    @property
    def filming(self) -> FrameModel:
        """Frame model, for what is asked of models of frames alone."""
        assert isinstance(self.pipeline, FrameModel), f"{self.name} makes no frames"
        return self.pipeline

    def info(self) -> ModelInfo:
        spec = self.pipeline.backbone.spec
        defaults = {key: value for key, value in self.pipeline.defaults.items() if value is not None}
        if isinstance(spec, FramesSpec):
            # Not to be asked for: how much work a video is.
            defaults["steps"] = spec.steps
            layout = LayoutInfo(kind=spec.layout.kind, shape=spec.layout.extent, channels=spec.layout.channels)
        else:
            defaults.setdefault("steps", len(spec.fixed_sizes or range(spec.num_tokens)))
            layout = LayoutInfo(kind=spec.layout.kind, shape=spec.layout.extent)
        orders = self.pipeline.orders if isinstance(self.pipeline, Model) else ()
        return ModelInfo(
            name=self.name,
            layout=layout,
            outputs=("frame", "video") if isinstance(spec, FramesSpec) else ("image",),
            accepts=spec.options,
            can_edit=spec.can_edit,
            can_vary=not isinstance(spec, FramesSpec) and spec.can_vary,
            has_previews=isinstance(self.pipeline, Model),
            grid=self.pipeline.grid,
            image_size=self.pipeline.image_size,
            orders=orders,
            chosen_orders=tuple(name for name in RULES if name in orders),
            group_sizes=self.pipeline.group_sizes if isinstance(self.pipeline, Model) else (),
            group_tables=self.pipeline.group_tables,
            condition=self.pipeline.conditioner.kind,
            defaults=GenerationDefaults.model_validate(defaults),
            has_fixed_steps=isinstance(self.pipeline, Model) and self.pipeline.has_fixed_steps,
            max_prompt_tokens=self.pipeline.max_prompt_tokens,
            can_revise=spec.can_revise,
            has_vocabulary=self.pipeline.vocabulary is not None,
            example_prompts=self.pipeline.example_prompts,
            pixel_art=self.pipeline.pixel_art,
            model_hash=self.pipeline.model_hash,
            created=self.created,
            licence=self.licence,
        )

    def warm_up(self) -> None:
        """The beginning of a picture, or the first frame, so that the first job is not the slow one."""
        if isinstance(self.pipeline, FrameModel):
            self._warm_up_frames(self.pipeline)
        else:
            self._warm_up_tokens(self.pipeline)

    def _warm_up_frames(self, model: FrameModel) -> None:
        spec = model.backbone.spec
        self.engine.add(FrameRequest(WARM_UP, model.unconditional_ids, 0, 0, guidance=2.0))
        for _ in range(min(spec.steps, len(spec.sigmas) + 1)):  # the last one commits a frame
            self.engine.step()
        self.engine.abort(WARM_UP)
        while self.engine.has_work:
            self.engine.step()
        model.show(torch.zeros(1, *spec.layout.frame_shape))

    def _warm_up_tokens(self, model: Model) -> None:
        num_tokens = model.backbone.spec.num_tokens
        steps = None if model.has_fixed_steps else min(WARM_UP_STEPS, num_tokens)
        plan, sampling = PlanSpec("raster", steps), SamplingParams(guidance=2.0)
        self.engine.add(SequenceRequest(WARM_UP, model.unconditional_ids, 0, 0, plan, sampling))
        for _ in range(WARM_UP_STEPS):
            self.engine.step()
        self.engine.abort(WARM_UP)
        while self.engine.has_work:
            self.engine.step()
        token_ids = torch.zeros(1, num_tokens, dtype=torch.long)
        model.decode(token_ids)
        model.decode_partial(token_ids, torch.zeros(1, num_tokens, dtype=torch.bool))


def _machine(device: torch.device) -> tuple[str, ...]:
    """Properties of the machine that decide how numbers round."""
    if device.type == "cuda":
        return (torch.cuda.get_device_name(device),)
    return (torch.backends.cpu.get_cpu_capability(),)


def _threads(device: torch.device, settings: Settings) -> str:
    """Number of threads that share its kernels, where that decides how numbers round."""
    if device.type == "cuda":
        return ""
    if thread_guard(settings) is not None:
        return "threads vary"
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' if threads > 1 else ''}"


def load_models(settings: Settings) -> list[LoadedModel]:
    """The models to serve, the default one first. Raises WeightsError, and ConfigError for too many slots."""
    torch.set_num_threads(settings.threads or _share(settings))
    manifest = Manifest.load(settings.weights_dir)
    device = _device(settings.device)
    return [_load(name, manifest, device, settings) for name in settings.models or (manifest.default,)]


def _share(settings: Settings) -> int:
    """Threads of torch for one worker: of those that it would take, as many as the worker has cores."""
    return max(1, min(torch.get_num_threads(), usable_cores() // settings.workers))


def thread_guard(settings: Settings) -> ThreadGuard | None:
    """Guards the thread that computes, where OAR_CALIBRATE=true asks for it: pixels on another number of threads may
    round differently, so a picture that is made again or resumed would not be the same to the byte."""
    is_measured = settings.calibrate is True and not settings.deterministic
    is_free = is_measured and not settings.threads and _device(settings.device) == "cpu"
    return ThreadGuard(torch.get_num_threads()) if is_free else None


def _load(name: str, manifest: Manifest, device: str, settings: Settings) -> LoadedModel:
    start = time.monotonic()
    folder = manifest.folder(name)
    pipeline, packing = _pipeline(folder, device, settings)
    engine = Engine(
        pipeline.backbone,
        pipeline.unconditional_ids,
        EngineConfig(
            settings.slots,
            max_cache_bytes=settings.cache_mib << 20 or None,
            max_prefill=settings.prefill_tokens,
            is_deterministic=settings.deterministic,
            packing=packing,
            is_static=settings.cuda_graphs and device.startswith("cuda"),
            is_compiled=settings.compile,
        ),
    )
    created = int((folder / "config.json").stat().st_mtime)
    licence = manifest.entries[name].licence
    mode = "deterministic" if settings.deterministic else "batched"
    threads = _threads(pipeline.device, settings)
    model = LoadedModel(name, pipeline, engine, settings.slots, created, licence, 0.0, mode, threads)
    model.warm_up()
    seconds = time.monotonic() - start
    logger.info("model loaded model=%s hash=%s device=%s seconds=%.2f", name, pipeline.model_hash, device, seconds)
    return replace(model, load_seconds=seconds)


def _device(requested: str) -> str:
    if requested != "auto":
        return requested
    return "cuda" if torch.cuda.is_available() else "cpu"


def _pipeline(folder: Path, device: str, settings: Settings) -> tuple[Model | FrameModel, Packing | None]:
    """A model in its number format, and which calls take packed weights, where that was measured."""
    requested = _DTYPES.get(settings.dtype, torch.bfloat16 if device.startswith("cuda") else torch.float32)
    if makes_frames(folder):
        return load_frame_model(folder, device, requested), None
    decode_dtype = _DTYPES.get(settings.decode_dtype, torch.float32)
    can_measure = device == "cpu" and not settings.deterministic and requested is not torch.int8
    if not can_measure or not _measures(settings, folder):
        return load_model(folder, device, requested, decode_dtype=decode_dtype), None
    pipeline = load_model(folder, device, torch.float32, decode_dtype=decode_dtype)
    dtypes = (_DTYPES["float32"], _DTYPES["bfloat16"]) if settings.dtype == "fastest" else (requested,)
    best = Calibration.stored(settings.data_dir / "calibration", pipeline.backbone, dtypes)
    logger.info("calibrated model=%s %s", pipeline.name, words(best))
    in_number_format(pipeline.backbone, _DTYPES[best.dtype])
    pipeline = replace(pipeline, dtype=_DTYPES[best.dtype])
    return (_decoding(pipeline, folder, settings) if settings.decode_dtype == "auto" else pipeline), best.packing


def _decoding(pipeline: Model, folder: Path, settings: Settings) -> Model:
    """The model with its image decoder in the number format that was measured to suit it."""
    if not has_bf16(pipeline.device):
        return pipeline

    def rounded() -> ImageTokenizer:
        return load_decoder(folder, str(pipeline.device), torch.bfloat16)

    best = DecoderCalibration.stored(
        settings.data_dir / "calibration", pipeline.model_hash, pipeline.tokenizer, rounded
    )
    logger.info("calibrated model=%s %s", pipeline.name, best.words)
    if best.dtype == "float32":
        return pipeline
    return replace(pipeline, tokenizer=rounded(), decode_dtype=torch.bfloat16)


def _measures(settings: Settings, folder: Path) -> bool:
    """Tells whether it is measured what suits this network. For a small one that changes little."""
    if settings.dtype == "fastest" or settings.calibrate is True:
        return True
    return settings.calibrate == "auto" and FP32_BYTES * count_numbers(folder / BACKBONE) >= LARGE_NETWORK
