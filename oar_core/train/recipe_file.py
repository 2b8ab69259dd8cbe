"""Recipes as TOML files: a named recipe with some of its fields changed, for who trains without writing Python.

`base = "pictures-64"` names the recipe; every other key is a field of `Recipe`, fields within fields by dots or tables.
What follows from another field is filled in unless it is said: the backbone's grid and vocabulary from the tokenizer,
its condition vocabulary from `text_vocab`, and no more default steps than the grid has tokens.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from oar_core.detail_config import DetailTokenizerConfig
from oar_core.errors import ConfigError
from oar_core.train.captions import CAPTION_SOURCES
from oar_core.train.columns import COLUMN_SOURCES
from oar_core.train.recipe import Recipe
from oar_core.train.recipes import RECIPES, find_recipe

SUFFIX = ".toml"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # also the name of the model's folder
TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}

C = TypeVar("C")


def load_recipe(name_or_path: str) -> Recipe:
    """The recipe of that name, or of the file where it ends in `.toml`. Raises ConfigError."""
    if name_or_path.endswith(SUFFIX):
        return read_recipe(Path(name_or_path))
    if name_or_path not in RECIPES:
        hint = _hint(name_or_path, RECIPES)
        raise ConfigError(f"unknown recipe {name_or_path!r}{hint} (a file of your own ends in {SUFFIX})")
    return find_recipe(name_or_path)


def read_recipe(path: Path) -> Recipe:
    """The file's recipe, named after the file unless it names itself.

    Raises ConfigError for a file that cannot be read, an unknown base or field, and a value of another type.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    try:
        base = str(values.pop("base", ""))
        if base not in RECIPES:
            said = f"unknown base {base!r}" if base else 'no base is named, as in base = "pictures-64"'
            raise ConfigError(said + _hint(base, RECIPES))
        return _changed(find_recipe(base), {"name": path.stem, **values})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _changed(base: Recipe, values: Mapping[str, Any]) -> Recipe:
    parts = _parts(base, values, "")
    tokenizer, backbone = parts.get("tokenizer", base.tokenizer), parts.get("backbone", base.backbone)
    follows = {"vocab_size": tokenizer.vocab_size, "condition_vocab": parts.get("text_vocab", base.text_vocab)}
    if isinstance(tokenizer, DetailTokenizerConfig):
        follows |= {name: getattr(tokenizer, name) for name in ("num_tokens", "group_size", "has_causal_first")}
    else:
        follows["grid"] = tokenizer.grid
    parts["backbone"] = replace(backbone, **_unsaid(follows, values.get("backbone")))
    defaults = parts.get("defaults", base.defaults)
    is_detail = isinstance(tokenizer, DetailTokenizerConfig)
    most = len(tokenizer.groups.sizes) if is_detail else min(defaults.steps, parts["backbone"].num_tokens)
    steps = {"steps": most}
    parts["defaults"] = replace(defaults, **_unsaid(steps, values.get("defaults")))
    changed = replace(base, **parts)
    most = changed.backbone.num_tokens
    if not 1 <= changed.defaults.steps <= most:
        raise ConfigError(f"defaults.steps is {changed.defaults.steps}; the grid takes 1 to {most}")
    if not NAME.fullmatch(changed.name):
        raise ConfigError(f"the name {changed.name!r} is not made of letters, digits, '.', '_' and '-'")
    if changed.caption_source not in CAPTION_SOURCES:
        hint = _hint(changed.caption_source, CAPTION_SOURCES)
        raise ConfigError(f"unknown caption_source {changed.caption_source!r}{hint}")
    if changed.column_source and changed.column_source not in COLUMN_SOURCES:
        hint = _hint(changed.column_source, COLUMN_SOURCES)
        raise ConfigError(f"unknown column_source {changed.column_source!r}{hint}")
    return changed


def _unsaid(follows: Mapping[str, Any], said: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in follows.items() if name not in (said or {})}


def _parts(config: Any, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The new value of each field of a config that `values` names; `where` is the path to the config, with a dot."""
    known = {field.name: getattr(config, field.name) for field in fields(config)}
    hints = get_type_hints(type(config))
    parts: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"there is no field {where + name!r}{_hint(name, known)}")
        old, path = known[name], where + name
        if not is_dataclass(old):
            parts[name] = _value(hints[name], value, path)
        elif isinstance(value, Mapping):
            parts[name] = replace(old, **_parts(old, value, f"{path}."))  # pyright: ignore[reportArgumentType]
        else:
            raise ConfigError(f"{path} has fields of its own, as {path}.{fields(old)[0].name}")
    return parts


def _value(hint: Any, value: Any, path: str) -> Any:
    """The value as the field's type; whole numbers stand for numbers, and lists for tuples."""
    if get_origin(hint) is tuple:
        items = get_args(hint)
        if not isinstance(value, list) or (Ellipsis not in items and len(value) != len(items)):
            size = "" if Ellipsis in items else f" of {len(items)}"
            raise ConfigError(f"{path} is {value!r}; it has to be a list{size}")
        kinds = [items[0]] * len(value) if Ellipsis in items else items
        return tuple(_value(kind, item, f"{path}[{place}]") for place, (kind, item) in enumerate(zip(kinds, value)))
    if is_dataclass(hint) and isinstance(hint, type):
        return _item(hint, value, path)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{path} is {value!r}; it has to be {TYPES[hint]}")
    return value


def _item(kind: type[C], value: Any, path: str) -> C:
    """A table of a list of them, as of `attributes`."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} is {value!r}; it has to be a table")
    hints = get_type_hints(kind)
    for name in value:
        if name not in hints:
            raise ConfigError(f"there is no field {f'{path}.{name}'!r}{_hint(name, hints)}")
    try:
        return kind(**{name: _value(hints[name], item, f"{path}.{name}") for name, item in value.items()})
    except TypeError as error:
        raise ConfigError(f"{path} lacks a field; it has {', '.join(hints)}") from error


def _hint(wrong: str, known: Iterable[str]) -> str:
    """The nearest name, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"
