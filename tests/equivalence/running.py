"""Requests run by an engine to their end."""

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import PatchesDecoded, SequenceFinished, SequenceStarted
from oar_core.models.model import Model
from oar_core.sampling.request import SequenceRequest


def run(model: Model, requests: list[SequenceRequest], *, num_steps: int | None = None, **settings):
    """Finished pictures by id, and the positions and tokens of each step. All take `num_steps` steps, where given."""
    engine = Engine(model.backbone, model.unconditional_ids, EngineConfig(6, **settings))
    for request in requests:
        engine.add(request)
    finished, steps = {}, {request.id: [] for request in requests}
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, SequenceFinished):
                finished[event.sequence_id] = event.token_ids
            elif isinstance(event, PatchesDecoded):
                steps[event.sequence_id].append([(patch.position, patch.token_id) for patch in event.patches])
            elif isinstance(event, SequenceStarted) and num_steps is not None:
                assert event.steps == num_steps
    return finished, steps
