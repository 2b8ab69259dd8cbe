"""Writes the client's types of what a request may say, from the models of the wire: a part of `make documents`."""

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import MaxLen, MinLen
from pydantic import BaseModel

from oar_wire.edit import EditSettings
from oar_wire.request import GenerationRequest

NOT_OPTIONS = {"prompt"}  # an argument of its own
HEAD = '''"""Types of a request. Written by `make documents` from oar_wire: do not edit."""

from typing import Literal, TypedDict


class Options(TypedDict, total=False):
    """Options of a generation beside its prompt; absent ones have the model's defaults. See docs/client.md."""

'''
EDITS = '''

class EditOptions(Options, total=False):
    """Options of an edit beside those."""

'''


def options_source() -> str:
    """The text of oar_client/options.py."""
    return HEAD + _fields(GenerationRequest) + EDITS + _fields(EditSettings)


def _fields(model: type[BaseModel]) -> str:
    fields = {name: field for name, field in model.model_fields.items() if name not in NOT_OPTIONS}
    return "".join(f"    {name}: {kind_text(field.annotation)}\n" for name, field in fields.items())


def kind_text(kind: Any) -> str:
    """A kind of JSON as a type of Python; a list of a fixed length may be given as a tuple too."""
    if kind is NoneType:
        return "None"
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        length = _fixed_length(parts[1:])
        plain = kind_text(parts[0])
        return f"{plain} | tuple[{', '.join([plain[5:-1]] * length)}]" if length else plain
    if origin in (Union, UnionType):
        return " | ".join(kind_text(part) for part in parts)
    if origin is Literal:
        return "Literal[" + ", ".join(f'"{part}"' for part in parts) + "]"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        kinds = dict.fromkeys(part for field in kind.model_fields.values() for part in get_args(field.annotation))
        return f"dict[str, {' | '.join(kind_text(part) for part in kinds)}]"
    if origin is list:
        return f"list[{kind_text(parts[0])}]"
    return kind.__name__


def _fixed_length(facts: tuple[Any, ...]) -> int:
    """Length of a list by its bounds; 0 where they leave a choice."""
    flat = [fact for part in facts for fact in getattr(part, "metadata", [part])]
    least = [fact.min_length for fact in flat if isinstance(fact, MinLen)]
    most = [fact.max_length for fact in flat if isinstance(fact, MaxLen)]
    return least[0] if least and least == most else 0
