"""Durations as the Lua scripts take them."""

from server.settings import Settings


def lifetimes(settings: Settings) -> dict[str, int]:
    """Arguments of the scripts that end jobs."""
    return {
        "result_ms": milliseconds(settings.result_ttl),
        "tombstone_ms": milliseconds(settings.result_ttl + settings.tombstone_ttl),
    }


def milliseconds(seconds: float) -> int:
    """Rounds, with at least 1 for what is more than nothing: 0 stands for never."""
    return max(1, round(seconds * 1000)) if seconds > 0 else 0
