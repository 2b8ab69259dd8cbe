"""Previews of models whose image tokenizer has no code for "unknown": the backbone is asked what it expects there."""

import asyncio
from collections.abc import Callable, Mapping

from oar_core.sampling.expectation import Expectation
from server.worker.engine_thread import Expect
from server.worker.models import LoadedModel
from server.worker.running import RunningJob


class Guesses:
    """Asks one picture at a time, between two steps of its engine, which therefore waits for one query at the most."""

    def __init__(self, models: Mapping[str, LoadedModel], send: Callable[[Expect], None]) -> None:
        self._models = models
        self._send = send
        self.seconds = 0.0  # that engines have spent on it so far

    async def of(self, job: RunningJob, image: int) -> Expectation | None:
        """For all positions that were unknown when the engine answered. None where nothing is to be guessed: the
        tokenizer needs no guess, the backbone cannot be asked, or the picture does not run."""
        model = self._models[job.claim.model]
        if not model.drawing.guesses_unknown:
            return None
        command = Expect(model.name, job.sequence_id(image))
        self._send(command)
        answer = await asyncio.wrap_future(command.answer)
        self.seconds += answer.seconds
        return answer.expectation
