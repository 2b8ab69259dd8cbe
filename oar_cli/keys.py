"""`oar keys`: make, hash, list and check API keys. The file of OAR_API_KEYS holds their hashes, and no key."""

import re
import sys
from pathlib import Path

import click

from oar_cli.answer import Answer, AnswerGroup
from oar_cli.settings_options import load_settings
from oar_core.new_file import new_file
from oar_wire.tenant import KeyFile, Tenant
from server.api.keyring import HASH_PREFIX, KeyFileError, KeyRing, hash_key, new_key, parse_key_file, read_key_file

LEAST_CHARS = 32  # of a key that somebody else made: what people choose can be guessed from its hash
SHOWN_DIGITS = 8
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")

file_option = click.option(
    "--file", "path", type=click.Path(path_type=Path, dir_okay=False), help="Default: what OAR_API_KEYS names."
)


@click.group(cls=AnswerGroup)
def keys() -> None:
    """Make, hash, list and check API keys."""


@keys.command()
@click.argument("tenant")
@file_option
def new(tenant: str, path: Path | None) -> Answer:
    """Give TENANT a new key, and show it this once.

    Its hash is added to the file, which is made if it is not there; without a file, it is told where to put it. A
    running server takes it up within a second or two.
    """
    if not NAME.fullmatch(tenant):
        raise click.UsageError("a tenant's name has 1 to 40 of a-z, 0-9, - and _, and begins with a letter or digit")
    key, path = new_key(), path or load_settings({}).api_keys
    digest = hash_key(key)
    if path is None:
        click.echo(f"# for the file that OAR_API_KEYS will name:\n{_table(tenant, digest)}", err=True, nl=False)
    else:
        _write(path, _with_key(path, tenant, digest))
        click.echo(f"{_short(digest)} of {tenant} was added to {path}; its key, shown this once:", err=True)
    return Answer({"tenant": tenant, "key": key, "hash": digest, "file": None if path is None else str(path)}, [key])


@keys.command("hash")
def hash_of() -> Answer:
    """Read a key of your own making and print what the file holds of it."""
    key = _read_key()
    if len(key) < LEAST_CHARS:
        message = f"a key has at least {LEAST_CHARS} random characters, as its hash is fast; `oar keys new` makes one"
        raise click.UsageError(message)
    return Answer({"hash": hash_key(key)}, [hash_key(key)])


@keys.command("list")
@file_option
def list_keys(path: Path | None) -> Answer:
    """List tenants with their limits and the beginnings of their keys' hashes."""
    file = _read(path)
    tenants = [file.tenant(name) for name in file.tenants]
    keys_of = {name: [_short(digest) for digest in entry.keys] for name, entry in file.tenants.items()}
    documents = [
        {"tenant": tenant.name, **tenant.model_dump(exclude={"name"}), "keys": keys_of[tenant.name]}
        for tenant in tenants
    ]
    lines = [line for tenant in tenants for line in (_limits(tenant), *(f"  {key}" for key in keys_of[tenant.name]))]
    return Answer(documents, lines)


@keys.command("check")
@file_option
def check_key(path: Path | None) -> Answer:
    """Read a key and say whose it is; exit code 1 if it is nobody's."""
    try:
        ring = KeyRing(_path(path))
    except KeyFileError as error:
        raise click.ClickException(str(error)) from error
    tenant = ring.find(_read_key())
    if tenant is None:
        raise click.ClickException("nobody was given this key")
    return Answer({"tenant": tenant.name}, [tenant.name])


def _limits(tenant: Tenant) -> str:
    rate = f"{tenant.rate:g}/s burst {tenant.bucket}" if tenant.rate else "no rate"
    return (
        f"{tenant.name}: {rate}, share {tenant.queue_share:g}, storage {tenant.storage_share:g}, "
        f"up to {tenant.priority_ceiling}, {tenant.max_sockets} sockets"
    )


def _path(path: Path | None) -> Path:
    found = path or load_settings({}).api_keys
    if found is None:
        raise click.UsageError("say --file, or set OAR_API_KEYS")
    return found


def _read(path: Path | None) -> KeyFile:
    try:
        return read_key_file(_path(path))
    except KeyFileError as error:
        raise click.ClickException(str(error)) from error


def _read_key() -> str:
    """Never from the command line, which other users of the machine can see."""
    if sys.stdin.isatty():
        return str(click.prompt("key", hide_input=True)).strip()
    return sys.stdin.readline().strip()


def _short(digest: str) -> str:
    return f"{digest[: len(HASH_PREFIX) + SHOWN_DIGITS]}…"


def _table(tenant: str, digest: str) -> str:
    return f'[tenants.{tenant}]\nkeys = ["{digest}"]\n'


def _with_key(path: Path, tenant: str, digest: str) -> str:
    """The file's text with one hash more, and otherwise as it was: comments stay. Raises ClickException."""
    if not path.exists():
        return _table(tenant, digest)
    text = path.read_text(encoding="utf-8")
    try:
        before = parse_key_file(text, path)
        after = _insert(text, tenant, digest) if tenant in before.tenants else f"{text}\n{_table(tenant, digest)}"
        expected = {name: list(entry.keys) for name, entry in before.tenants.items()}
        expected.setdefault(tenant, []).insert(0, digest)
        found = {name: entry.keys for name, entry in parse_key_file(after, path).tenants.items()}
    except KeyFileError as error:
        raise click.ClickException(str(error)) from error
    if found != expected:
        raise click.ClickException(f'add it by hand to the keys of [tenants.{tenant}] in {path}: "{digest}"')
    return after


def _insert(text: str, tenant: str, digest: str) -> str:
    """Puts the hash first in the list `keys` of the tenant's table."""
    pattern = rf"(?ms)^(\[tenants\.{re.escape(tenant)}\][^\n]*\n(?:(?!\[)[^\n]*\n)*?\s*keys\s*=\s*\[)(\s*\])?"
    return re.sub(pattern, lambda match: f'{match[1]}"{digest}"{"]" if match[2] else ", "}', text, count=1)


def _write(path: Path, text: str) -> None:
    """Writes in one step: a server that reads it meanwhile sees the old file or the new one."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o640
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8")
        part.chmod(mode)
