"""The options of a drawing as flags of a command line."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from oar_wire.options import Option, plain

F = TypeVar("F", bound=Callable[..., Any])


def name_or_sizes(text: str) -> str | tuple[int, ...]:
    """Group sizes: a schedule's name, or how many positions each step decodes, as `2,2,4,8`."""
    parts = text.split(",")
    return tuple(int(part) for part in parts) if all(part.strip().isdigit() for part in parts) else text


def with_options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Joins options to one decorator, which lists them in this order."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def flag(option: Option, **changes: Any) -> Callable[[F], F]:
    """A decorator that adds the option's flag to a command; `changes` are arguments of `click.option`."""
    return click.option(f"--{option.name.replace('_', '-')}", option.name, **{**_usual(option), **changes})


def _usual(option: Option) -> dict[str, Any]:
    text = {"help": f"{option.about.sentence}."}
    if option.choices:
        return {"type": click.Choice(option.choices), **text}
    if option.is_pair:
        return {"type": float, "nargs": 2, "default": None, **text}
    kind = plain(option.kind)
    return {"type": kind if kind in (int, float, str) else str, **text}
