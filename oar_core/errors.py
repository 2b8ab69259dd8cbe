"""The library's exceptions.

OarError
├── ConfigError          a config contradicts itself
├── WeightsError         weights are missing, unknown or do not match the manifest
├── DataError            a training folder cannot be read
├── CheckpointError      a checkpoint does not fit the run that wants to resume it
└── RequestError         a generation request that cannot be served; has a stable `code` and the `field` at fault
    ├── InvalidOrder     the order is unknown, or is no permutation of the grid
    ├── InvalidSteps     steps outside 1..L, or group sizes that do not sum to L
    ├── InvalidSampling  temperature, top_k, top_p or guidance out of range
    ├── PromptTooLong    the prompt has more tokens than the model's condition prefix holds
    └── InvalidPrompt    no prompt where one is needed
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from oar_wire import errors
from oar_wire.options import BadOption, check_all


class OarError(Exception):
    """Base of every error that this library raises on purpose."""


class ConfigError(OarError):
    pass


class WeightsError(OarError):
    pass


class DataError(OarError):
    pass


class CheckpointError(OarError):
    pass


class RequestError(OarError):
    code: ClassVar[str] = errors.InvalidRequest.code

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidOrder(RequestError):
    code = errors.InvalidOrder.code


class InvalidSteps(RequestError):
    code = errors.InvalidSteps.code


class InvalidSampling(RequestError):
    code = errors.InvalidSampling.code


class PromptTooLong(RequestError):
    code = errors.PromptTooLong.code


class InvalidPrompt(RequestError):
    code = errors.InvalidPrompt.code


def refusal(error: BadOption) -> RequestError:
    """A broken rule of the wire as the library's own error."""
    kinds = {kind.code: kind for kind in RequestError.__subclasses__()}
    return kinds.get(error.kind.code, RequestError)(str(error), field=error.field)


def check_options(values: Mapping[str, Any]) -> None:
    """Checks those of the values that are options of a drawing against their bounds. Raises a RequestError."""
    try:
        check_all(values)
    except BadOption as error:
        raise refusal(error) from error
