"""The library's exceptions.

LibraryError
├── ConfigError              a config contradicts itself
├── WeightsError             weights are missing, unknown or do not match the manifest
├── DataError                a training folder cannot be read
├── CheckpointError          a checkpoint does not fit the run that wants to resume it
└── RequestError             a generation request that cannot be served; has a stable `code` and the `field` at fault
    ├── OrderError           the order is unknown, or is no permutation of the grid
    ├── StepsError           steps outside 1..L, or group sizes that do not sum to L
    ├── SamplingError        temperature, top_k, top_p or guidance out of range
    ├── PromptLengthError    the prompt has more tokens than the model's condition prefix holds
    └── PromptError          no prompt where one is needed
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from oar_wire import errors
from oar_wire.options import BadOption, check_all


class LibraryError(Exception):
    """Base of every error that this library raises on purpose."""


class ConfigError(LibraryError):
    pass


class WeightsError(LibraryError):
    pass


class DataError(LibraryError):
    pass


class CheckpointError(LibraryError):
    pass


class RequestError(LibraryError):
    code: ClassVar[str] = errors.InvalidRequest.code

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class OrderError(RequestError):
    code = errors.InvalidOrder.code


class StepsError(RequestError):
    code = errors.InvalidSteps.code


class SamplingError(RequestError):
    code = errors.InvalidSampling.code


class PromptLengthError(RequestError):
    code = errors.PromptTooLong.code


class PromptError(RequestError):
    code = errors.InvalidPrompt.code


def request_error(error: BadOption) -> RequestError:
    """A broken rule of the wire as the library's own error."""
    kinds = {kind.code: kind for kind in RequestError.__subclasses__()}
    return kinds.get(error.kind.code, RequestError)(str(error), field=error.field)


def check_options(values: Mapping[str, Any]) -> None:
    """Checks those of the values that are options of a drawing against their bounds. Raises a RequestError."""
    try:
        check_all(values)
    except BadOption as error:
        raise request_error(error) from error
