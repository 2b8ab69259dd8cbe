"""The Lua scripts, and how they are run: by digest, loaded again when Redis does not know them.

A script takes named arguments, as one JSON object, and bytes behind it where it stores them as they are.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from redis.exceptions import NoScriptError

from server.jobs.connection import RedisConnection, Word
from server.jobs.keys import lua_names


@dataclass(frozen=True)
class Script:
    name: str
    text: str
    digest: str


@dataclass(frozen=True)
class Call:
    script: Script
    keys: Sequence[str]
    args: Mapping[str, Any]
    data: Sequence[str | bytes] = ()  # bodies and pictures, which need no second encoding

    @property
    def words(self) -> tuple[Word, ...]:
        args = json.dumps(self.args, ensure_ascii=False, separators=(",", ":"))
        return ("EVALSHA", self.script.digest, len(self.keys), *self.keys, args, *self.data)


ENDING = ("storage", "conclude")
LOG_SCRIPTS = ("keep", "emit", "finish")  # of one round trip, each of which presumes that those before it have run
LIBRARIES = {
    "submit": ("queues", "place", "storage"),
    "look": ("queues", "place"),
    "take": ("queues",),
    "sweep": ("lease",),
    "hold": ("lease",),
    **dict.fromkeys(("cancel", "claim", "expire", "finish", "lost"), ENDING),
}


@cache
def script(name: str) -> Script:
    folder = resources.files("server.jobs") / "lua"
    parts = ("prelude", *LIBRARIES.get(name, ()), name)
    text = lua_names() + "".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts)
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


async def run(
    connection: RedisConnection,
    name: str,
    keys: Sequence[str],
    args: Mapping[str, Any],
    data: Sequence[str | bytes] = (),
) -> Any:
    """Runs one script, again when Redis cannot be reached: all but `take` change nothing the second time.

    (`rate` may take a second token and `line` a second place, which is the lesser evil.)
    """
    replies = await run_many(connection, [Call(script(name), keys, args, data)])
    return replies[0]


async def run_many(connection: RedisConnection, calls: Sequence[Call]) -> list[Any]:
    """Runs scripts in one round trip. Raises RedisUnavailable, or the first error that a script raised."""
    return await connection.retry(lambda: _attempt(connection, calls))


async def run_once(connection: RedisConnection, name: str, keys: Sequence[str], args: Mapping[str, Any]) -> Any:
    """Runs one script that must not be repeated. Raises redis-py's errors."""
    return (await _attempt(connection, [Call(script(name), keys, args)]))[0]


async def _attempt(connection: RedisConnection, calls: Sequence[Call]) -> list[Any]:
    """A script that Redis does not know is skipped, and those behind it would run without it. So what is called
    together is loaded before its first call."""
    commands = [call.words for call in calls]
    if not connection.has_log_scripts and len({call.script.name for call in calls}) > 1:
        await _load(connection, calls)
    replies = await connection.pipeline(commands)
    if any(isinstance(reply, NoScriptError) for reply in replies):
        await _load(connection, calls)
        replies = await connection.pipeline(commands)
    _raise_first(replies)
    return replies


async def _load(connection: RedisConnection, calls: Sequence[Call]) -> None:
    """All of the log's, in their order: where Redis knows one of them, it knows those before it, whoever loaded it."""
    names = dict.fromkeys((*LOG_SCRIPTS, *(call.script.name for call in calls)))
    _raise_first(await connection.pipeline([("SCRIPT", "LOAD", script(name).text) for name in names]))
    connection.has_log_scripts = True


def _raise_first(replies: Sequence[Any]) -> None:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
