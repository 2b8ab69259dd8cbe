"""`oar worker`: also what `oar serve` runs."""

import logging
import sys

import click

from oar_cli.inherit import EXIT_CONFIG, end_with_parent, tell_ready
from oar_cli.settings_options import with_settings
from oar_core.errors import LibraryError
from oar_core.host_memory import keep_freed_memory
from server.jobs.check import RedisRefused
from server.jobs.embedded import EmbeddedRedisError
from server.observability.logging import configure_logging
from server.observability.tracing import TracingUnavailable
from server.results.store import ResultsRefused
from server.settings import Settings
from server.worker.worker import WorkerCrashed, run_worker

logger = logging.getLogger(__name__)

# For how long one thread may hold Python's lock while another waits for it. The engine's thread gives it away at each
# of the hundreds of kernels of a step: by Python's 5 ms, a step stands still for as long as events are written.
SWITCH_SECONDS = 1e-4


@click.command("worker")
@with_settings
def worker_command(settings: Settings) -> None:
    """Run a worker process: models and engine."""
    keep_freed_memory()  # before there are threads
    sys.setswitchinterval(SWITCH_SECONDS)
    configure_logging(settings.log_format, settings.log_level)
    end_with_parent()
    try:
        run_worker(settings, on_ready=tell_ready)
    except (LibraryError, EmbeddedRedisError, RedisRefused, ResultsRefused, TracingUnavailable) as error:
        logger.error("worker cannot start: %s", error)
        raise SystemExit(EXIT_CONFIG) from error
    except WorkerCrashed as error:
        logger.exception("worker crashed")
        raise SystemExit(1) from error
