"""A client of the OAR server: `Client`, and `AsyncClient` with the same surface.

It speaks the server's own wire types (`oar_wire`) and needs httpx, websockets and pydantic, nothing else of the
server. Pictures come as bytes; Pillow is used where it is installed and asked for.
"""

from oar_client.aio import AsyncClient, AsyncEventStream, AsyncJob
from oar_client.canvas import Canvas, ImageCanvas
from oar_client.client import Client, EventStream, Job
from oar_client.errors import (
    BadAnswer,
    BadRequest,
    ClientClosed,
    Conflict,
    ConnectionFailed,
    JobCanceled,
    JobEnded,
    JobFailed,
    NotFound,
    OarError,
    Overloaded,
    Refused,
    ServerMistake,
    TimedOut,
    Unauthorized,
)
from oar_client.feed import AnyEvent, UnknownEvent
from oar_client.options import EditOptions, Options
from oar_client.pictures import FrameOutput, Generation, Output, Picture, PictureSource
from oar_client.retry import Patience
from oar_wire.events import (
    Canceled,
    Completed,
    Failed,
    Frame,
    Partial,
    Patches,
    PatchInfo,
    Preview,
    Queued,
    Restarted,
    Revised,
    Started,
)
from oar_wire.job import GenerationParams, GenerationStatus
from oar_wire.model import ModelEntry
from oar_wire.outputs import OutputLink

__all__ = [
    "AnyEvent",
    "AsyncClient",
    "AsyncEventStream",
    "AsyncJob",
    "BadAnswer",
    "BadRequest",
    "Canceled",
    "Canvas",
    "Client",
    "ClientClosed",
    "Completed",
    "Conflict",
    "ConnectionFailed",
    "EditOptions",
    "EventStream",
    "Failed",
    "Frame",
    "FrameOutput",
    "Generation",
    "GenerationParams",
    "GenerationStatus",
    "ImageCanvas",
    "Job",
    "JobCanceled",
    "JobEnded",
    "JobFailed",
    "ModelEntry",
    "NotFound",
    "OarError",
    "Options",
    "Output",
    "OutputLink",
    "Overloaded",
    "Partial",
    "PatchInfo",
    "Patches",
    "Patience",
    "Picture",
    "PictureSource",
    "Preview",
    "Queued",
    "Refused",
    "Restarted",
    "Revised",
    "ServerMistake",
    "Started",
    "TimedOut",
    "Unauthorized",
    "UnknownEvent",
]
