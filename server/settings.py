"""Every setting of the server, in one place: environment variables with the prefix `OAR_`, and `REDIS_URL`.

A command line flag of the same name wins over the environment, and the environment over the default.
"""

import ipaddress
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _check_redis_url(url: str | None) -> str | None:
    """A password that is not percent-encoded is taken for the host or the port, and would be logged as such."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        is_redis = parts.scheme in {"redis", "rediss"} and parts.hostname and (parts.port is None or parts.port > 0)
        is_socket = parts.scheme == "unix" and parts.path
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
    except ValueError:
        is_redis = is_socket = False
        options = {}
    if not is_redis and not is_socket:
        raise ValueError("no URL of a Redis: redis://, rediss:// or unix://, with @ : / # ? % of a password as %40 ...")
    for name in options:
        if name not in REDIS_OPTIONS:
            known = ", ".join(REDIS_OPTIONS)
            raise ValueError(f"?{name[:40]} is not for the URL to say; what may stand there is {known}")
    database = options.get("db", "" if is_socket else urlsplit(url).path.removeprefix("/"))
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError(f"the database is a number, as in redis://host:6379/0, and not {database[:40]!r}")
    return url


# The rest (protocol, timeouts, how replies are read) is the server's own business.
REDIS_OPTIONS = (
    *("db", "username", "password", "client_name", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile"),
    *("ssl_keyfile", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname", "ssl_ciphers"),
)


def check_root_path(path: str) -> str:
    """Without a slash at its end; empty for the root itself. Raises ValueError for what cannot stand in links."""
    text = path.rstrip("/")
    segments = text.split("/")[1:]
    if text and (not text.startswith("/") or not all(SEGMENT.fullmatch(segment) for segment in segments)):
        raise ValueError("no path such as /oar")
    if segments and segments[0] in OWN_SEGMENTS:
        raise ValueError(f"/{segments[0]} is an address of the server itself")
    return text


def _check_networks(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        try:
            if name != "*":
                ipaddress.ip_network(name)
        except ValueError:
            raise ValueError(f"{name!r} is no address or network such as 10.0.0.7 or 10.0.0.0/8") from None
    return names


def _check_hosts(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name != "*" and not HOST_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no host name such as pictures.example or *.pictures.example, without a port")
    return tuple(name.lower() for name in names)


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(origin if origin in {"*", "null"} else normalise_origin(origin) for origin in origins)


def normalise_origin(origin: str) -> str:
    """Writes it as browsers send it: in lower case, the host's name in ASCII, without the scheme's default port.

    Raises ValueError for what is no origin.
    """
    if "*" in origin:
        raise ValueError(f"{origin!r} has a wildcard: name each origin, or * alone for all of them")
    try:
        parts = urlsplit(origin.lower())
        port = parts.port
        host = _normalise_host(parts.hostname or "")
    except ValueError:
        parts, port, host = urlsplit(""), None, ""
    is_bare = origin.lower() == f"{parts.scheme}://{parts.netloc}" and "@" not in parts.netloc and port != 0
    if not (host and parts.scheme and is_bare):
        raise ValueError(f"{origin!r} is no origin such as https://pictures.example or http://localhost:3000")
    has_port = port is not None and port != DEFAULT_PORTS.get(parts.scheme)
    return f"{parts.scheme}://{host}:{port}" if has_port else f"{parts.scheme}://{host}"


def _normalise_host(host: str) -> str:
    """Raises ValueError."""
    if ":" in host:
        return f"[{ipaddress.IPv6Address(host).compressed}]"
    if any(letter.isspace() for letter in host):
        raise ValueError(f"{host!r} is no host")
    return host.encode("idna").decode() if not host.isascii() else host


def _split_pairs(value: object) -> object:
    """`a=b,c=d` as a mapping. Raises ValueError."""
    if not isinstance(value, str):
        return value
    pairs: dict[str, str] = {}
    for part in filter(None, map(str.strip, value.split(","))):
        name, equals, target = (word.strip() for word in part.partition("="))
        if not (name and equals and target):
            raise ValueError(f"{part!r} is no pair such as gpt-image-1=sprites-64")
        if pairs.setdefault(name, target) != target:
            raise ValueError(f"{name!r} has two meanings")
    return pairs


def _check_aliases(aliases: dict[str, str]) -> dict[str, str]:
    for name, target in aliases.items():
        if target in aliases:
            raise ValueError(f"{name!r} stands for {target!r}, which is an alias itself: name the model")
    return aliases


def _check_results(value: str) -> str:
    if value in {"redis", "folder"}:
        return value
    match = S3_URL.fullmatch(value)
    if match is None:
        raise ValueError(f"{value[:80]!r} is not redis, folder, or an address such as s3://bucket/prefix")
    return value.rstrip("/")


DEFAULT_PORTS = {"http": 80, "https": 443}

# What the first segment of a prefix cannot be: a path that begins with it would be read as one that has the prefix.
OWN_SEGMENTS = frozenset({"v1", "studio", "docs", "redoc", "live", "ready", "metrics", "openapi.json", "asyncapi.json"})
SEGMENT = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~-]+")
HOST_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
S3_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)*/?")
# Whoever sets one of these wants a door to be locked: empty, it must not leave the door open.
NEVER_EMPTY = frozenset({"api_keys", "metrics_key", "link_secret"})

Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]
Origins = Annotated[Names, AfterValidator(_check_origins)]
Aliases = Annotated[dict[str, str], NoDecode, BeforeValidator(_split_pairs), AfterValidator(_check_aliases)]
Networks = Annotated[Names, AfterValidator(_check_networks)]
Hosts = Annotated[Names, AfterValidator(_check_hosts)]
RootPath = Annotated[str, AfterValidator(check_root_path)]
Results = Annotated[str, AfterValidator(_check_results)]
RedisUrl = Annotated[str | None, AfterValidator(_check_redis_url)]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="OAR_",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,  # it may be a secret
    )

    # where
    host: str = Field("127.0.0.1", description="Address that the API listens on")
    port: int = Field(8000, ge=0, le=65535, description="Port of the API; 0 lets the system choose one")
    data_dir: Path = Field(Path(".oar"), description="Folder for the bundled Redis' data and the workers' names")
    redis_url: RedisUrl = Field(
        None,
        validation_alias="REDIS_URL",
        description="A Redis >= 6.2 or Valkey; unset starts the bundled one",
        repr=False,
    )

    fsync: Literal["everysec", "always"] = Field(
        "everysec",
        description="When the bundled Redis writes to the disk: once a second, or before each answer",
    )

    root_path: RootPath = Field("", description="Path prefix at a proxy, such as /oar")
    trusted_proxies: Networks = Field(
        ("127.0.0.0/8", "::1"),
        description="Proxies (addresses, networks) whose X-Forwarded headers count, comma separated",
    )

    # who may use it
    api_keys: Path | None = Field(None, description="File of tenants and keys; unset lets everybody in")
    metrics_key: str | None = Field(
        None, min_length=16, description="Bearer key of /metrics; unset leaves it open", repr=False
    )
    link_secret: str | None = Field(
        None,
        min_length=32,
        description="Secret of signed picture links; unset takes a random one from Redis",
        repr=False,
    )
    link_seconds: float = Field(3600, ge=1, le=7 * 86400, description="Seconds that a signed link is valid")
    allowed_origins: Origins = Field((), description="Origins whose pages may use the API, comma separated; * is all")

    allowed_hosts: Hosts = Field(
        (),
        description="Host names of the server, comma separated, such as *.pictures.example; * is all; "
        "unset checks on loopback only",
    )

    # models and the engine
    models: Names = Field((), description="Models to serve, comma separated; empty: the manifest's default")
    model_aliases: Aliases = Field(
        {},
        description="Other names of models, such as gpt-image-1=sprites-64, comma separated",
    )
    openai_strict: bool = Field(
        False,
        description="Whether /v1/images/* refuses what a model cannot do, instead of a warning",
    )
    weights_dir: Path = Field(Path("weights"), description="Folder with manifest.toml and the models")
    workers: int = Field(1, ge=1, le=64, description="Worker processes of `oar serve`")
    slots: int = Field(64, ge=1, le=4096, description="Cache slots of a worker; a guided image takes two")
    cache_mib: int = Field(0, ge=0, description="Most MiB of cache slots for each model; 0 is no limit")
    prefill_tokens: int = Field(
        256, ge=1, le=1 << 20, description="Most prompt and picture tokens that one engine step prefills"
    )
    threads: int = Field(0, ge=0, le=1024, description="Threads of torch in a worker; 0 leaves torch's choice")
    device: str = Field("auto", description="Device of a worker: auto, cpu or cuda[:index]")
    dtype: Literal["auto", "float32", "bfloat16", "int8", "fastest"] = Field(
        "auto",
        description="Number format of the engine; auto: bfloat16 on CUDA, else float32; fastest: measured",
    )
    decode_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Number format of the image decoder; auto: float32, or bfloat16 where OAR_CALIBRATE sees it pay",
    )
    cuda_graphs: bool = Field(False, description="Whether CUDA steps are captured as graphs at the start")
    compile: bool = Field(
        False,
        description="Whether the draw of tokens is compiled at the start; a CPU needs a C++ compiler",
    )
    calibrate: bool | Literal["auto"] = Field(
        "auto",
        description="Whether a CPU worker measures kernels at its first start and keeps the result; "
        "auto: only for networks of 256 MiB and more; true: also threads while it runs, so pixels may "
        "round differently",
    )
    deterministic: bool = Field(
        False, description="Whether pictures are computed one by one: same bits in any batch, far slower"
    )
    image_metadata: bool = Field(True, description="Whether PNGs carry prompt and parameters")
    preview_interval: float = Field(0.25, ge=0.02, le=60, description="Least seconds between previews of one image")
    preview_batch: int = Field(8, ge=1, le=256, description="Images decoded together for previews")

    # leases and endings
    lease_seconds: float = Field(
        15, ge=0.5, le=600, description="Seconds of silence after which another worker takes a job"
    )
    max_attempts: int = Field(3, ge=1, le=20, description="Attempts at a job before it fails")
    job_deadline: float = Field(0, ge=0, description="Default deadline in seconds; 0 is none")
    max_deadline: float = Field(86400, ge=1, description="Longest deadline in seconds")
    sweep_seconds: float = Field(1, ge=0.05, le=60, description="Seconds between checks of deadlines")
    priority_aging_seconds: float = Field(30, ge=0.1, description="Seconds of waiting that raise a job by one priority")
    model_grace: float = Field(600, ge=0, description="Seconds that a model is listed without a worker")
    dead_length: int = Field(1000, ge=1, description="Most entries of the list of dead jobs")
    ready_grace: float = Field(0, ge=0, le=600, description="Seconds that a stopping API still serves")
    drain_seconds: float = Field(10, ge=0, le=600, description="Seconds that a stopping worker gives its jobs")
    result_ttl: float = Field(3600, ge=1, description="Seconds that Redis keeps an ended job and its pictures")
    tombstone_ttl: float = Field(86400, ge=1, description="Seconds that an expired job's id is remembered")
    canceled_ttl: float = Field(60, ge=1, description="Seconds that a job is kept if it was canceled before its start")
    idempotency_ttl: float = Field(86400, ge=1, description="Seconds that an Idempotency-Key is remembered")

    # results
    results: Results = Field(
        "redis",
        description="Store of results: redis, folder (default of `oar serve`) or s3://BUCKET/PREFIX",
    )
    results_mib: int = Field(2048, ge=0, description="Most MiB of a folder or bucket; 0 is no limit")
    results_ttl: float = Field(
        0, ge=0, description="Seconds that a folder or bucket keeps unused results; 0 is no limit"
    )

    # callbacks
    callback_private: bool = Field(
        False, description="Whether a callback_url may lead to addresses that are not public"
    )
    callback_attempts: int = Field(8, ge=1, le=10, description="Most attempts at a callback")
    callback_retry: float = Field(
        5,
        ge=0.01,
        le=60,
        description="Seconds before a callback's second attempt; each next waits four times as long",
    )

    # limits
    max_body_bytes: int = Field(128 << 10, ge=1024, description="Largest request body without pictures, in bytes")
    max_upload_bytes: int = Field(8 << 20, ge=1024, description="Largest request body with pictures, in bytes")
    max_held_bytes: int = Field(128 << 20, ge=1024, description="Most bytes of all request bodies in one API process")
    max_image_bytes: int = Field(4 << 20, ge=64, description="Largest picture or mask of an edit, in bytes")
    max_image_pixels: int = Field(4 << 20, ge=64, description="Largest picture or mask of an edit, in pixels")
    picture_threads: int = Field(2, ge=1, le=64, description="API threads for uploads, and as many for WebP and JPEG")
    picture_queue: int = Field(64, ge=1, le=4096, description="Most pictures that wait for these threads")
    head_timeout: float = Field(
        10,
        ge=0.1,
        le=600,
        description="Seconds to send address and headers",
    )
    body_timeout: float = Field(60, ge=0.1, le=3600, description="Seconds to send a body")
    max_prompt_chars: int = Field(1000, ge=1, description="Longest prompt in characters")
    max_n: int = Field(16, ge=1, le=256, description="Most images of one request")
    queue_depth: int = Field(256, ge=1, description="Most waiting and running jobs of one model")
    storage_mib: int = Field(1024, ge=1, description="MiB of Redis for jobs; each tenant may use its storage_share")
    max_wait: float = Field(60, ge=0, description="Longest `Prefer: wait=N`, in seconds")
    images_wait: float = Field(300, ge=0.1, description="Longest wait of /v1/images/*, in seconds")
    max_sockets: int = Field(1024, ge=1, description="Most open streams of one API process")
    socket_idle: float = Field(600, ge=0.1, description="Seconds without an event before a stream closes")
    stream_heartbeat: float = Field(
        15, ge=0.05, description="Seconds of silence before an event stream sends a comment"
    )
    socket_send_timeout: float = Field(20, ge=0.1, description="Seconds for a client to accept one frame")
    socket_ping: float = Field(20, ge=0.1, description="Seconds between websocket pings, and for the answer")
    registry_seconds: float = Field(1, ge=0, le=60, description="Seconds that the API caches models and workers")
    command_timeout: float = Field(5, ge=0.1, description="Seconds for one Redis command")

    # watching
    metrics_lease: float = Field(45, ge=1, description="Seconds of the metrics lease; longer than the scrape interval")
    metrics_workers: bool = Field(
        True, description="Whether the API's /metrics repeats the workers'; false if workers are scraped"
    )
    worker_metrics_port: int = Field(0, ge=0, le=65535, description="Port of a worker's own /metrics; 0 is none")
    otlp_endpoint: str | None = Field(
        None, description="URL for OTLP traces, such as http://collector:4318/v1/traces; unset sends none"
    )
    log_format: Literal["text", "json"] = Field("text", description="Log format: key=value text, or JSON")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level to log")

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, values: Any) -> Any:
        """An empty variable is an unset one, as `${NAME:-}` of a compose file makes it; but for keys."""
        if not isinstance(values, dict):
            return values
        given = cast("dict[str, Any]", values)
        empty = {name for name, value in given.items() if isinstance(value, str) and not value.strip()}
        for name in sorted(empty & NEVER_EMPTY):
            raise ValueError(f"{environment_name(name)} is empty: give it a value, or take the variable away")
        return {name: value for name, value in given.items() if name not in empty}

    @cached_property
    def redis_commands(self) -> int:
        """Redis commands that an API process has under way at a time: all its sockets may ask for one at one moment."""
        return min(128, max(16, self.max_sockets // 16))

    @cached_property
    def heartbeat_seconds(self) -> float:
        return min(self.lease_seconds / 3, 2.0)


def environment_name(field: str) -> str:
    """The environment variable that sets `field`."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else f"OAR_{field.upper()}"
