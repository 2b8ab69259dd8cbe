"""Open files: each websocket is one, and systems commonly allow a process 1,024 unless it asks for more."""

import logging
import resource

from server.settings import Settings

logger = logging.getLogger(__name__)

OTHER_FILES = 256  # logs, requests that are no streams, idle connections of clients


def raise_file_limit(settings: Settings) -> None:
    """Allows this process as many open files as `OAR_MAX_SOCKETS` needs; warns where the system does not."""
    needed = settings.max_sockets + settings.redis_commands + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    except (OSError, ValueError) as error:
        logger.warning("cannot raise the limit of open files from %d: %s", soft, error)
        return
    if allowed < needed:
        logger.warning("OAR_MAX_SOCKETS=%d needs %d open files, %d are allowed", settings.max_sockets, needed, allowed)
