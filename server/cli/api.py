"""`oar api`: also what `oar serve` runs."""

import asyncio
import logging

import click
import uvicorn

from server.api.app import create_app
from server.cli.inherit import EXIT_CONFIG, end_with_parent, inherited_listener, listen
from server.cli.options import with_settings
from server.observability.logging import configure_logging
from server.observability.tracing import TracingUnavailable
from server.settings import Settings

logger = logging.getLogger(__name__)

GRACEFUL_SECONDS = 3
MAX_FRAME_BYTES = 64 << 10


@click.command()
@with_settings
def api(settings: Settings) -> None:
    """Run an API process: HTTP and websockets, no torch."""
    configure_logging(settings.log_format, settings.log_level)
    end_with_parent()
    listener = inherited_listener() or listen(settings)
    host, port = listener.getsockname()[:2]
    logger.info("api listens on http://%s:%d", host, port)
    try:
        app = create_app(settings)
    except TracingUnavailable as error:
        logger.error("api cannot start: %s", error)
        raise SystemExit(EXIT_CONFIG) from error
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
        ws_ping_interval=settings.socket_ping,
        ws_ping_timeout=settings.socket_ping,
        ws_max_size=MAX_FRAME_BYTES,
    )
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
