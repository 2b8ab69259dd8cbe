"""Servers and a Redis that end with their module: tests of other folders look for processes that are left."""

from tests.client.conftest import _no_inherited_settings, live, redis_server
from tests.server.conftest import anyio_backend, connection, model_info, settings

__all__ = [
    "_no_inherited_settings",
    "anyio_backend",
    "connection",
    "live",
    "model_info",
    "redis_server",
    "settings",
]
