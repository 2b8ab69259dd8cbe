"""The source of a file: a path of this machine, or a repository of the Hugging Face Hub."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from oar_core.errors import ConfigError, WeightsError
from oar_core.host_memory import in_words

HUB = "hf:"
_HUB_NAME = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+?))?/(?P<file>[^@]+)")
_SPELLING = "hf:OWNER/REPO/FILE, or hf:OWNER/REPO@REVISION/FILE"
SPARE_BYTES = 64 << 20  # of a disk, which stay free


@dataclass(frozen=True)
class Fetched:
    """A file that lies on this machine."""

    path: Path
    origin: str  # as the card names it
    revision: str = ""  # of a repository: the commit


@dataclass(frozen=True)
class HubFile:
    repo: str
    file: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "HubFile":
        """Raises ConfigError."""
        match = _HUB_NAME.fullmatch(text)
        if match is None or ".." in match["file"].split("/"):
            raise ConfigError(f"{text!r} is no file of a repository; it is written {_SPELLING}")
        return cls(match["repo"], match["file"], match["revision"])

    def __str__(self) -> str:
        return f"{HUB}{self.repo}{'' if self.revision is None else f'@{self.revision}'}/{self.file}"


def fetch(text: str) -> Fetched:
    """A path as it is; a file of the Hub from the cache of `huggingface_hub`, or downloaded there. A download that was
    cut off goes on where it stopped. Raises ConfigError, WeightsError."""
    if not text.startswith(HUB):
        path = Path(text)
        if path.is_dir():
            raise WeightsError(f"{path} is a folder; name the file in it that holds the weights")
        if not path.is_file():
            raise WeightsError(f"there is no file {path}")
        return Fetched(path, path.name)
    requested = HubFile.parse(text)
    path = _download(requested)
    # The cache keeps each commit in a folder of its name: models--OWNER--REPO/snapshots/COMMIT/FILE.
    commit = path.parts[-1 - len(Path(requested.file).parts)]
    return Fetched(path, str(HubFile(requested.repo, requested.file, commit)), commit)


def fetch_text(text: str) -> Fetched:
    """Fetches as `fetch` does, or takes a folder of this machine: a text encoder is several files."""
    path = Path(text)
    return Fetched(path, path.name) if path.is_dir() else fetch(text)


def _download(requested: HubFile) -> Path:
    hub = _hub()
    known = hub.try_to_load_from_cache(requested.repo, requested.file, revision=requested.revision)
    with _sentences(requested, hub):
        if not isinstance(known, str):
            _check_disk(requested, hub)
        return Path(hub.hf_hub_download(requested.repo, requested.file, revision=requested.revision))


def _check_disk(requested: HubFile, hub: Any) -> None:
    plan = hub.hf_hub_download(requested.repo, requested.file, revision=requested.revision, dry_run=True)
    if plan.will_download:
        check_disk(Path(hub.constants.HF_HUB_CACHE), plan.file_size, str(requested))


def check_disk(folder: Path, num_bytes: int, what: str) -> None:
    """Raises WeightsError where so many bytes would fill the disk of a folder, which need not be there yet."""
    present = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(present).free
    if num_bytes + SPARE_BYTES > free:
        left = f"{in_words(free)} are left on the disk of {folder}"
        raise WeightsError(f"{what} takes {in_words(num_bytes)}, and {left}; nothing was written")


def _hub() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise ConfigError(
            "files of the Hugging Face Hub need huggingface_hub: pip install 'oar-server[import]'"
        ) from error
    return huggingface_hub


@contextmanager
def _sentences(requested: HubFile, hub: Any) -> Iterator[None]:
    """The Hub's errors as one sentence each."""
    errors = hub.errors
    try:
        yield
    except errors.GatedRepoError as error:
        raise WeightsError(f"{requested.repo} is gated: accept its terms on its page, then `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(f"the Hub has no repository {requested.repo}, or it is private") from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{requested.repo} has no revision {requested.revision}") from error
    except errors.LocalEntryNotFoundError as error:
        raise WeightsError(f"{requested} is not in the cache, and the Hub cannot be reached") from error
    except errors.EntryNotFoundError as error:
        raise WeightsError(f"{requested.repo} has no file {requested.file}") from error
    except errors.OfflineModeIsEnabled as error:
        raise WeightsError(f"{requested} is not in the cache, and HF_HUB_OFFLINE is set") from error
    except errors.HFValidationError as error:
        raise ConfigError(f"{requested} is no name of the Hub: {error}") from error
    except (errors.HfHubHTTPError, httpx.HTTPError) as error:
        raise WeightsError(
            f"the download of {requested} was cut off; the same command goes on where it stopped ({_first_line(error)})"
        ) from error
    except OSError as error:
        raise WeightsError(f"{requested} cannot be stored: {error.strerror or _first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
