"""The Lua scripts, and how they are called: `RedisConnection.evaluate` runs them.

A script takes named arguments, as one JSON object, and bytes behind it where it stores them as they are.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from server.jobs.connection import RedisConnection, Word
from server.jobs.keys import lua_names


@dataclass(frozen=True)
class Script:
    name: str
    text: str
    digest: str


@dataclass(frozen=True)
class ScriptCall:
    script: Script
    keys: Sequence[str]
    args: Mapping[str, Any]
    data: Sequence[str | bytes] = ()  # bodies and pictures, which need no second encoding

    @property
    def words(self) -> tuple[Word, ...]:
        args = json.dumps(self.args, ensure_ascii=False, separators=(",", ":"))
        return ("EVALSHA", self.script.digest, len(self.keys), *self.keys, args, *self.data)


ENDING = ("storage", "conclude")
LOG_SCRIPTS = ("keep", "emit", "finish")  # called together; each presumes that those before it have run
LIBRARIES = {
    "submit": ("queues", "place", "storage"),
    "look": ("queues", "place"),
    "take": ("queues",),
    "sweep": ("lease",),
    "hold": ("lease",),
    **dict.fromkeys(("archived", "delete"), ("storage",)),
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
    return (await run_many(connection, [ScriptCall(script(name), keys, args, data)]))[0]


async def run_many(connection: RedisConnection, calls: Sequence[ScriptCall]) -> list[Any]:
    """Runs scripts in one round trip. Raises RedisUnavailable, or the first error that a script raised."""
    return await connection.evaluate([call.words for call in calls], _texts(calls))


async def run_once(connection: RedisConnection, name: str, keys: Sequence[str], args: Mapping[str, Any]) -> Any:
    """Runs one script that must not be repeated. Raises redis-py's errors."""
    call = ScriptCall(script(name), keys, args)
    return (await connection.evaluate_once([call.words], _texts([call])))[0]


def _texts(calls: Sequence[ScriptCall]) -> tuple[str, ...]:
    """Texts that are loaded where Redis does not know one of these scripts: all of the log's, in their order, for where
    Redis knows one of them, it knows those before it, whoever loaded it."""
    return tuple(script(name).text for name in dict.fromkeys((*LOG_SCRIPTS, *(call.script.name for call in calls))))
