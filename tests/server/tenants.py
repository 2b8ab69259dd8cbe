"""Two tenants with keys, as tests of the gate need them."""

import base64
from dataclasses import dataclass
from pathlib import Path

from server.api.keyring import hash_key, new_key


@dataclass(frozen=True)
class Keys:
    """A file of keys, and the keys themselves."""

    path: Path
    one: str
    other: str


def write_keys(folder: Path, one: str = "rate = 0", other: str = "rate = 0") -> Keys:
    """`one` and `other` are the limits of the tenants of these names, as TOML."""
    keys = Keys(folder / "keys.toml", new_key(), new_key())
    keys.path.write_text(
        f'[tenants.one]\nkeys = ["{hash_key(keys.one)}"]\n{one}\n\n'
        f'[tenants.other]\nkeys = ["{hash_key(keys.other)}"]\n{other}\n'
    )
    return keys


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def protocols(key: str) -> list[str]:
    """What a browser offers that opens a websocket."""
    return ["oar.v1", "oar.key." + base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")]
