"""Requests to the engine: a job's prompts as its model reads them, and one request for each picture or video."""

from dataclasses import dataclass, fields

from oar_core.engine.sequence import KnownTokens, SequenceRequest
from oar_core.errors import RequestError
from oar_core.models.base import Prefix
from oar_core.models.model import ModelBase
from oar_core.order.plan import PlanSpec
from oar_core.sampling.frames import Frame, FrameRequest
from oar_core.sampling.sampler import SamplingParams
from oar_wire.job import GenerationParams
from oar_wire.options import take


@dataclass(frozen=True)
class Prompts:
    """The prompts of a job as a model reads them."""

    condition_ids: Prefix
    negative_ids: Prefix | None = None


def read_prompts(params: GenerationParams, pipeline: ModelBase) -> Prompts:
    """Raises PromptError, PromptLengthError."""
    negative = (params.negative_prompt or "").strip()
    # Two classes may have one name: the number is what was chosen.
    prompt = params.prompt if params.drawn_class is None else str(params.drawn_class.index)
    return Prompts(pipeline.encode_prompt(prompt), _encode(pipeline, negative, "negative_prompt") if negative else None)


def _encode(pipeline: ModelBase, prompt: str, field: str) -> Prefix:
    try:
        return pipeline.encode_prompt(prompt)
    except RequestError as error:
        error.field = field
        raise


def sequence_request(
    params: GenerationParams, prompts: Prompts, sequence_id: str, image: int, known: KnownTokens
) -> SequenceRequest:
    return SequenceRequest(
        id=sequence_id,
        condition_ids=prompts.condition_ids,
        negative_ids=prompts.negative_ids,
        seed=params.seed,
        image_index=image,
        plan=PlanSpec.of(vars(params)),
        sampling=SamplingParams(**take(vars(params), [item.name for item in fields(SamplingParams)])),
        known=known,
    )


def frame_request(
    params: GenerationParams, prompts: Prompts, sequence_id: str, video: int, known: tuple[Frame, ...]
) -> FrameRequest:
    return FrameRequest(
        id=sequence_id,
        condition_ids=prompts.condition_ids,
        seed=params.seed,
        image_index=video,
        guidance=params.guidance,
        known=known,
    )
