"""The API keys: read from the operator's file, compared, and read again when the file changes.

The file holds SHA-256 of each key and no key. A slow hash such as scrypt would guard passwords, which people choose and
others can guess; a key of 256 random bits cannot be guessed from its hash however fast that is, and every request
would pay for the slowness.
"""

import asyncio
import hashlib
import hmac
import logging
import os
import secrets
import tomllib
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from oar_wire.tenant import KeyFile, Tenant

logger = logging.getLogger(__name__)

KEY_PREFIX = "oar_"  # by which a leaked key is found and known
KEY_BYTES = 32
HASH_PREFIX = "sha256:"
LOOK_SECONDS = 1.0


class KeyFileError(RuntimeError):
    """The file of the keys cannot be used; the message says where and why, in one line."""


def new_key() -> str:
    return KEY_PREFIX + urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode().rstrip("=")


def hash_key(key: str) -> str:
    return HASH_PREFIX + hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def read_key_file(path: Path) -> KeyFile:
    """Raises KeyFileError."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows begin a file with a mark
    except UnicodeDecodeError as error:
        raise KeyFileError(f"{path}: is no UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_key_file(text, path)


def parse_key_file(text: str, path: Path) -> KeyFile:
    """`path` is named in errors. Raises KeyFileError."""
    try:
        return KeyFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise KeyFileError(f"{path}: no TOML: {error}") from error
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise KeyFileError(f"{path}: {where}: {fault['msg']}") from error


class KeyRing:
    """Knows whose a key is. A file that is broken when it is read again changes nothing but the log."""

    def __init__(self, path: Path) -> None:
        """Raises KeyFileError."""
        self._path = path
        self._seen = _signature(path)
        self._owners = _owners(read_key_file(path))
        self._log_read()

    def find(self, key: str) -> Tenant | None:
        """Compares with all hashes, whichever is right: the time tells nothing."""
        digest = hash_key(key)
        found: Tenant | None = None
        for known, tenant in self._owners.items():
            if hmac.compare_digest(known, digest):
                found = tenant
        return found

    @property
    def tenants(self) -> list[Tenant]:
        return list({tenant.name: tenant for tenant in self._owners.values()}.values())

    def reload(self) -> bool:
        """Reads the file again; False where it is broken and the old keys stay."""
        self._seen = _signature(self._path)
        try:
            self._owners = _owners(read_key_file(self._path))
        except KeyFileError as error:
            logger.error("the API keys stay as they were: %s", error)
            return False
        self._log_read()
        return True

    def _log_read(self) -> None:
        logger.info("API keys read tenants=%d keys=%d", len(self.tenants), len(self._owners))

    async def run(self) -> None:
        """Reads the file again whenever it has changed; runs until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if await asyncio.to_thread(_signature, self._path) != self._seen:
                self.reload()


def _owners(file: KeyFile) -> Mapping[str, Tenant]:
    """Owners by hash."""
    return {key: tenant for name, entry in file.tenants.items() for tenant in [file.tenant(name)] for key in entry.keys}


def _signature(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file does, also when another one takes its place; None where there is none."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
