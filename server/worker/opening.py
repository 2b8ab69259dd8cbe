"""A claimed job, made ready to run: its checkpoint, the picture that it edits and its prompts are read."""

import asyncio
from collections.abc import Mapping

from oar_core.errors import RequestError
from server.jobs.log import Claim, JobLog
from server.worker.edits import JobEdit, SourceMissing
from server.worker.models import LoadedModel
from server.worker.render import Renderer
from server.worker.requests import Prompts, read_prompts
from server.worker.running import RunningJob


class JobOpener:
    def __init__(self, log: JobLog, models: Mapping[str, LoadedModel], renderer: Renderer) -> None:
        self._log = log
        self._models = models
        self._renderer = renderer

    async def open(self, claim: Claim) -> RunningJob:
        """Raises RequestError for a job that cannot begin, RedisUnavailable."""
        checkpoint = await self._log.checkpoint(claim)
        self._check_kind(claim)
        frame_shape = None
        if claim.params.frames:
            frame_shape = self._models[claim.model].filming.backbone.spec.layout.frame_shape
        edit, prompts = await self._edit(claim), await self._prompts(claim)
        return RunningJob.begin(claim, checkpoint, edit=edit, prompts=prompts, frame_shape=frame_shape)

    def _check_kind(self, claim: Claim) -> None:
        """A model of the same name may have come in place of the one that the job was accepted for. Raises
        RequestError."""
        if claim.params.frames != self._models[claim.model].pipeline.num_frames:
            raise RequestError("the model makes something else now than when the job was submitted", field="model")

    async def _edit(self, claim: Claim) -> JobEdit | None:
        """Raises RequestError when the job's source picture cannot be edited."""
        params = claim.params.edit
        if params is None:
            return None
        png = await self._log.source(claim)
        if png is None:
            raise SourceMissing("the picture that was to be edited is no longer kept", field="image")
        return await self._renderer.open_edit(self._models[claim.model].drawing, params, png, claim.params.seed)

    async def _prompts(self, claim: Claim) -> Prompts | None:
        """None where reading takes no time: an encoder of captions is a network of its own. Raises RequestError."""
        pipeline = self._models[claim.model].pipeline
        if not pipeline.backbone.spec.feature_width:
            return None
        return await asyncio.to_thread(read_prompts, claim.params, pipeline)
