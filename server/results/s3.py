"""Files of a store in a bucket of S3, or of anything that speaks its protocol.

Credentials, region and endpoint come from where AWS' own tools take them: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL_S3, a
profile, or the role of the machine.
"""

import contextlib
import logging
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import urlsplit

from server.results.files import PROBE, StoredFile, StoreFault, check_path
from server.results.store import ResultsRefused

CONNECT_SECONDS, READ_SECONDS = 3.0, 10.0
ATTEMPTS = 2
CONNECTIONS = 16
DELETED_AT_ONCE = 1000  # S3's own limit
# Codes of answers that will not change until somebody changes the settings.
REFUSALS = frozenset(
    {
        *("NoSuchBucket", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403", "InvalidBucketName"),
        *("ExpiredToken", "InvalidToken", "PermanentRedirect", "AuthorizationHeaderMalformed"),
    }
)
MISSING = frozenset({"NoSuchKey", "404"})
CONTENT_TYPES = {"png": "image/png", "webp": "image/webp", "json": "application/json", "gz": "application/gzip"}


class S3Files:
    def __init__(self, url: str) -> None:
        """`url` is s3://BUCKET/PREFIX. Raises ResultsRefused where boto3 is missing, or finds no region or profile."""
        parts = urlsplit(url)
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        self._client = _connect()

    @property
    def where(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}"

    def check(self) -> None:
        try:
            with self._faults():
                self._client.put_object(Bucket=self._bucket, Key=self._key(PROBE), Body=b"probe")
                self._client.delete_object(Bucket=self._bucket, Key=self._key(PROBE))
        except _Refusal as error:
            raise ResultsRefused(f"results cannot be written to {error}") from error

    def write(self, name: str, data: bytes) -> None:
        kind = CONTENT_TYPES.get(name.rpartition(".")[2], "application/octet-stream")
        with self._faults():
            self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=data, ContentType=kind)

    def read(self, name: str) -> bytes | None:
        with self._faults():
            try:
                return self._client.get_object(Bucket=self._bucket, Key=self._key(name))["Body"].read()
            except self._client.exceptions.ClientError as error:
                if _code(error) in MISSING:
                    return None
                raise

    def note_use(self, job: str) -> None:
        """S3 does not know it."""

    def delete(self, job: str) -> None:
        check_path(job)  # an empty name would be all
        with self._faults():
            names = [file.name for file in self.list(job)]
            # The record goes first: a job of which a part is gone must not be found.
            names.sort(key=lambda name: not name.endswith("/record.json"))
            for start in range(0, len(names), DELETED_AT_ONCE):
                objects = [{"Key": self._key(name)} for name in names[start : start + DELETED_AT_ONCE]]
                reply = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
                for error in reply.get("Errors", ()):
                    raise StoreFault(f"{self.where}: {error.get('Code')}")

    def list(self, folder: str = "") -> Iterator[StoredFile]:
        root = f"{self._prefix}/" if self._prefix else ""
        under = f"{root}{check_path(folder)}/" if folder else root
        with self._faults():
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=under):
                for entry in page.get("Contents", ()):
                    name = entry["Key"].removeprefix(root)
                    if name.count("/") == 2:
                        yield StoredFile(name, entry["Size"], entry["LastModified"].timestamp())

    def _key(self, name: str) -> str:
        check_path(name)
        return f"{self._prefix}/{name}" if self._prefix else name

    @contextlib.contextmanager
    def _faults(self) -> Generator[None]:
        """Raises StoreFault in the place of what botocore raises."""
        from botocore.exceptions import (  # pyright: ignore[reportMissingTypeStubs]
            BotoCoreError,
            ClientError,
            NoCredentialsError,
            PartialCredentialsError,
        )

        try:
            yield
        except ClientError as error:
            kind = _Refusal if _code(error) in REFUSALS else StoreFault
            raise kind(f"{self.where}: {_code(error)}") from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise _Refusal(f"{self.where}: no credentials, such as AWS_ACCESS_KEY_ID") from error
        except BotoCoreError as error:
            raise StoreFault(f"{self.where}: {type(error).__name__}") from error


class _Refusal(StoreFault):
    """Only an operator can help."""


def _connect() -> Any:
    """Raises ResultsRefused."""
    try:
        import boto3  # pyright: ignore[reportMissingTypeStubs]
        from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]
        from botocore.exceptions import BotoCoreError  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise ResultsRefused("results in S3 need boto3: pip install 'oar-server[s3]'") from error
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it would tell of each client where it found what
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        max_pool_connections=CONNECTIONS,
    )
    try:
        return boto3.session.Session().client("s3", config=config)  # pyright: ignore
    except BotoCoreError as error:
        raise ResultsRefused(f"results in S3: {error}") from error


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))
