"""Needs of the server from the Redis that REDIS_URL names, looked at before anything is served.

What no retry can mend is `RedisRefused`, with a sentence that says what is wrong and what is supported. A server that
is away may come back: that is `RedisAway`.
"""

import logging
import re
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    InvalidResponse,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from server.jobs import keys
from server.jobs.safety import SECTIONS, find_dangers

logger = logging.getLogger(__name__)

LEAST_VERSION = (6, 2)
RETRY_SECONDS = 1.0
FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
RIGHTS = "+@read +@write +@stream +@scripting +@connection +time on all keys"
# One of each kind of command that the scripts use, on a key of its own that is gone afterwards.
PROBE = """
local calls = {{'TIME'}, {'EXISTS', KEYS[1]}, {'SET', KEYS[1], '1', 'PX', 1000}, {'GET', KEYS[1]},
  {'MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0}, {'DEL', KEYS[1]},
  {'HSET', KEYS[1], 'a', 1}, {'HGET', KEYS[1], 'a'}, {'DEL', KEYS[1]}, {'SADD', KEYS[1], 'a'}, {'DEL', KEYS[1]},
  {'ZADD', KEYS[1], 1, 'a'}, {'DEL', KEYS[1]}, {'XADD', KEYS[1], '*', 'a', 'b'}, {'XLEN', KEYS[1]},
  {'XGROUP', 'CREATE', KEYS[1], 'a', '0'}, {'XREADGROUP', 'GROUP', 'a', 'a', 'COUNT', 1, 'STREAMS', KEYS[1], '>'},
  {'XPENDING', KEYS[1], 'a'}, {'DEL', KEYS[1]}}
for _, call in ipairs(calls) do
  local reply = redis.pcall(unpack(call))
  if type(reply) == 'table' and reply.err then
    return call[1] .. ' ' .. reply.err
  end
end
return ''
"""
DENIED = re.compile(r"NOPERM|can't run this command|ACL failure|no permissions|not allowed", re.IGNORECASE)


class RedisRefused(RuntimeError):
    """REDIS_URL names what this server cannot work with; no retry helps."""


class RedisAway(RuntimeError):
    """Nothing answers there now."""


def check_redis(url: str, timeout: float, *, is_start: bool = False) -> None:
    """Checks Redis at the start of a process, and logs what is unsafe about it. Raises RedisRefused, RedisAway."""
    options = dict(parse_qsl(urlsplit(url).query))
    for name in FILES:
        if name in options and not Path(options[name]).exists():
            raise RedisRefused(f"?{name} of REDIS_URL names {options[name]}, which is not there")
    try:
        client = _client(url, timeout)
        try:
            for look in (_look_at_kind, _look_at_database, _look_at_rights):
                look(client)
            if is_start:
                _look_at_safety(client)
        finally:
            client.close()
    except (RedisError, OSError, ValueError) as error:
        raise _explained(error, url) from error


def wait_for_redis(url: str, timeout: float) -> None:
    """Until a Redis answers that can be used; one line tells what is waited for. Raises RedisRefused."""
    is_told = False
    while True:
        try:
            check_redis(url, timeout, is_start=True)
        except RedisAway as error:
            if not is_told:
                logger.warning("waiting for Redis: %s", error)
            is_told = True
            time.sleep(RETRY_SECONDS)
        else:
            return


def look_once(url: str, timeout: float) -> None:
    """Checks Redis for a process that can serve without it: one line says that it is away. Raises RedisRefused.

    What is unsafe about it is told by the API process' `SafetyWatch`, from its first look on.
    """
    try:
        check_redis(url, timeout)
    except RedisAway as error:
        logger.warning("Redis is away, and looked for again: %s", error)


def _client(url: str, timeout: float) -> Redis:
    client: Redis = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
        url,
        protocol=2,
        decode_responses=False,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
    client.response_callbacks.clear()
    return client


def _execute(client: Redis, *words: str | int) -> Any:
    return cast(Any, client.execute_command(*words))  # pyright: ignore[reportUnknownMemberType]


def _look_at_kind(client: Redis) -> None:
    """Checks what answers, and whether it is too old. The database is chosen later: a Sentinel has none."""
    options = client.connection_pool.connection_kwargs
    options["db"], database = 0, options.get("db", 0)
    try:
        words: Sequence[Any] = _execute(client, "HELLO")
    except ResponseError as error:
        if "unknown command" in str(error).lower():
            raise RedisRefused("REDIS_URL names a Redis older than 6.2; Redis >= 6.2 or Valkey is needed") from error
        raise
    facts = {_text(key): _text(value) for key, value in zip(words[::2], words[1::2]) if isinstance(value, bytes)}
    if facts.get("mode") == "sentinel":
        raise RedisRefused("REDIS_URL names a Sentinel, which is not supported; name the master that it watches")
    if facts.get("mode") == "cluster":
        message = "REDIS_URL names a node of a cluster, which is not supported; name a single Redis or Valkey"
        raise RedisRefused(message)
    version = tuple(int(part) for part in re.findall(r"\d+", facts.get("version", ""))[:2])
    if version and version < LEAST_VERSION:
        raise RedisRefused(f"REDIS_URL names a Redis {facts['version']}; Redis >= 6.2 or Valkey is needed")
    if facts.get("role") in {"replica", "slave"}:
        logger.warning("REDIS_URL names a replica, which takes no writes; name its master")
    options["db"] = database


def _look_at_database(client: Redis) -> None:
    options = client.connection_pool.connection_kwargs
    try:
        _execute(client, "SELECT", int(options.get("db") or 0))
    except ResponseError as error:
        if isinstance(error, NoPermissionError):
            raise
        raise RedisRefused(f"REDIS_URL names the database {options.get('db')}, which is not there: {error}") from error


def _look_at_rights(client: Redis) -> None:
    """Tells whether every kind of command and key may be used: a server that finds out later answers 500."""
    try:
        digest: bytes = _execute(client, "SCRIPT", "LOAD", PROBE)
        fault = _text(_execute(client, "EVALSHA", _text(digest), 1, keys.RIGHTS_PROBE))
        _execute(client, "EXISTS", *(f"{prefix}:0" for prefix in keys.PREFIXES), *keys.SINGLE)
        _execute(client, "XREAD", "BLOCK", 1, "STREAMS", keys.ACTIVITY, "$")
    except NoPermissionError as error:
        raise RedisRefused(f"REDIS_URL's user may not do all that is needed ({error}); give it {RIGHTS}") from error
    except ResponseError as error:
        if "unknown command" in str(error).lower():
            raise RedisRefused(f"REDIS_URL names a Redis without scripts or streams: {error}") from error
        raise
    if DENIED.search(fault):
        raise RedisRefused(f"REDIS_URL's user may not do all that is needed ({fault}); give it {RIGHTS}")
    if fault:
        logger.warning("Redis takes no writes now: %s", fault)


def _look_at_safety(client: Redis) -> None:
    """Finds where Redis may lose jobs by itself; a user that may not look is not told."""
    try:
        info = "\n".join(_text(_execute(client, "INFO", section)) for section in SECTIONS)
    except ResponseError:
        return
    for sentence in find_dangers(info).values():
        logger.warning("%s", sentence)


def _explained(error: Exception, url: str) -> RedisRefused | RedisAway:
    for cause in _causes(error):
        for kind, explain in EXPLANATIONS:
            if isinstance(cause, kind):
                return explain(cause)
    hint = "; rediss:// wants a server with TLS" if url.startswith("rediss:") else ""
    return RedisAway(f"no answer from the server that REDIS_URL names: {error}{hint}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The innermost first: that is what happened."""
    inner = error.__cause__ or error.__context__
    if inner is not None:
        yield from _causes(inner)
    yield error


def _on_certificate(error: BaseException) -> RedisRefused:
    reason = getattr(error, "verify_message", "") or str(error)
    cure = "name its CA with ?ssl_ca_certs=FILE"
    return RedisRefused(f"the certificate of the server that REDIS_URL names is not trusted ({reason}); {cure}")


def _on_tls(error: BaseException) -> RedisRefused:
    return RedisRefused(
        f"no TLS with the server that REDIS_URL names ({error}); redis:// is without TLS, rediss:// with"
    )


EXPLANATIONS: Sequence[tuple[type[BaseException], Callable[[BaseException], RedisRefused | RedisAway]]] = (
    (ssl.SSLCertVerificationError, _on_certificate),
    (ssl.SSLError, _on_tls),
    (
        FileNotFoundError,
        lambda error: RedisAway(f"there is no socket at the path that REDIS_URL names: {error}"),
    ),
    (
        AuthenticationError,
        lambda error: RedisRefused(f"the Redis that REDIS_URL names does not accept the user or password: {error}"),
    ),
    (
        AuthorizationError,
        lambda error: RedisRefused(f"REDIS_URL's user may not do what is needed ({error}); give it {RIGHTS}"),
    ),
    (
        NoPermissionError,
        lambda error: RedisRefused(f"REDIS_URL's user may not do what is needed ({error}); give it {RIGHTS}"),
    ),
    (
        InvalidResponse,
        lambda error: RedisRefused(f"what REDIS_URL names does not speak Redis' protocol: {error}"),
    ),
    (ValueError, lambda error: RedisRefused(f"REDIS_URL cannot be used: {error}")),
)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
