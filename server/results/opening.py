"""Opens the store of results that the settings name."""

import logging
from pathlib import Path

from server.jobs.connection import RedisConnection
from server.results.files import Files, StoreFault
from server.results.folder import FolderFiles
from server.results.redis_results import RedisResults
from server.results.store import ResultStore
from server.results.stored_results import StoredResults
from server.settings import Settings

logger = logging.getLogger(__name__)

FOLDER = "results"  # in the data folder


def results_folder(settings: Settings) -> Path:
    return settings.data_dir / FOLDER


def open_files(settings: Settings) -> Files | None:
    """None where Redis has the results. Raises ResultsRefused."""
    if settings.results == "redis":
        return None
    if settings.results == "folder":
        return FolderFiles(results_folder(settings))
    from server.results.s3 import S3Files

    return S3Files(settings.results)


def open_results(settings: Settings, connection: RedisConnection) -> ResultStore:
    """Raises ResultsRefused."""
    files = open_files(settings)
    return RedisResults(connection) if files is None else StoredResults(files, connection)


def check_results(settings: Settings) -> None:
    """Looks whether results can be kept, before anything else starts. Raises ResultsRefused where only an operator can
    help; a store that does not answer now is waited for later."""
    files = open_files(settings)
    if files is None:
        return
    try:
        files.check()
    except StoreFault as error:
        logger.warning("the store of results does not answer yet: %s", error)
    else:
        logger.info("results are kept in %s", files.where)
