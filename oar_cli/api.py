"""`oar api`: also what `oar serve` runs."""

import asyncio
import gc
import logging
import signal
import socket
from types import FrameType

import click
import uvicorn
from fastapi import FastAPI

from oar_cli.file_limit import raise_file_limit
from oar_cli.inherit import EXIT_CONFIG, end_with_parent, inherited_listener, listen, tell_ready
from oar_cli.settings_options import with_settings
from oar_wire.loopback import is_loopback
from server.api.app import create_app
from server.api.deps import Services
from server.api.http import server_config
from server.api.keyring import KeyFileError, KeyRing
from server.jobs.check import RedisRefused, look_once
from server.jobs.embedded import EmbeddedRedisError, redis_url
from server.observability.logging import configure_logging
from server.observability.tracing import TracingUnavailable
from server.results.opening import check_results
from server.results.store import ResultsRefused
from server.settings import Settings

logger = logging.getLogger(__name__)


@click.command()
@with_settings
def api(settings: Settings) -> None:
    """Run an API process: HTTP and websockets, no torch.

    SIGHUP reads the file of OAR_API_KEYS again; a change of it is noticed without, too.
    """
    configure_logging(settings.log_format, settings.log_level)
    end_with_parent()
    raise_file_limit(settings)
    listener = inherited_listener() or listen(settings)
    host, port = listener.getsockname()[:2]
    logger.info("api listens on http://%s:%d", host, port)
    if settings.api_keys is None and not is_loopback(settings.host):
        logger.warning("everybody who reaches %s:%d may use this server: OAR_API_KEYS is not set", host, port)
    if not settings.allowed_hosts and not is_loopback(settings.host):
        logger.warning(
            "this server answers to any name, a page's that was bound to it too: OAR_ALLOWED_HOSTS is not set"
        )
    try:
        check_results(settings)
        if settings.redis_url:
            look_once(settings.redis_url, settings.command_timeout)
        with redis_url(settings) as url:
            _serve(settings.model_copy(update={"redis_url": url}), listener)
    except (TracingUnavailable, KeyFileError, RedisRefused, ResultsRefused, EmbeddedRedisError) as error:
        logger.error("api cannot start: %s", error)
        raise SystemExit(EXIT_CONFIG) from error


def _serve(settings: Settings, listener: socket.socket) -> None:
    """Returns after a signal. Raises TracingUnavailable, KeyFileError."""
    app = create_app(settings)
    config = server_config(app, settings)
    asyncio.run(_Server(config, app, settings.ready_grace).serve(sockets=[listener]))


class _Server(uvicorn.Server):
    """Says at `/ready` that it stops before it does, so that a balancer can send nothing more."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, grace: float) -> None:
        super().__init__(config)
        self._app = app
        self._grace = grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there now stays: a full collection would look at all of it, and stop everybody for 50 ms or more.
        gc.collect()
        gc.freeze()
        self._loop = asyncio.get_running_loop()
        ring: KeyRing | None = self._app.state.ring
        if ring is not None:
            self._loop.add_signal_handler(signal.SIGHUP, ring.reload)
        if self.started:
            tell_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        services: Services | None = getattr(self._app.state, "services", None)
        if services is None or services.is_stopping or not self._grace:
            super().handle_exit(sig, frame)
            return
        services.is_stopping = True
        stop = super().handle_exit
        self._loop.call_soon_threadsafe(lambda: self._loop.call_later(self._grace, stop, sig, frame))
