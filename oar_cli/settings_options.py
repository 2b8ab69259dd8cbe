"""Settings as command line options: one for each field, made from `Settings` itself."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from oar_cli.inherit import EXIT_CONFIG
from server.settings import Settings, environment_name


class BadSetting(click.UsageError):
    """A setting's value cannot work, however often it is tried."""

    exit_code = EXIT_CONFIG


class StartRefused(click.ClickException):
    """The configured model or Redis cannot work; trying again does not help."""

    exit_code = EXIT_CONFIG


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Calls `command(settings, **others)`; all settings' options are added and taken out."""

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        given = {name: values.pop(name) for name in Settings.model_fields if name in values}
        command(load_settings({name: value for name, value in given.items() if value is not None}), **values)

    decorated: Callable[..., None] = wrapped
    for name, field in reversed(Settings.model_fields.items()):
        text = f"{field.description}. [env: {environment_name(name)}; default: {show(field.default) or 'none'}]"
        decorated = click.option(f"--{name.replace('_', '-')}", name, metavar="VALUE", help=text)(decorated)
    return decorated


def load_settings(given: dict[str, Any]) -> Settings:
    """Flags over environment over defaults. Raises BadSetting, which names the variables at fault."""
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = [f"{_variable(fault['loc'])}{fault['msg'].removeprefix('Value error, ')}" for fault in error.errors()]
        raise BadSetting("; ".join(lines)) from error


def to_environment(settings: Settings) -> dict[str, str]:
    """The environment from which a child process reads the same settings."""
    values = ((name, getattr(settings, name)) for name in Settings.model_fields)
    return {environment_name(name): show(value) for name, value in values if value is not None}


def show(value: Any) -> str:
    """A value as it is written in the environment."""
    if value is None:
        return ""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return ",".join(f"{name}={target}" for name, target in value.items())  # pyright: ignore[reportUnknownVariableType]
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownArgumentType]


def _variable(location: tuple[int | str, ...]) -> str:
    """The variable at fault, and a colon; empty where the sentence itself names it."""
    name = str(location[0]) if location else ""
    return f"{environment_name(name) if name in Settings.model_fields else name}: " if name else ""
