"""Two habits of all messages: what we accept is strict, what we send may grow."""

from typing import Final

from pydantic import BaseModel, ConfigDict, field_validator

CACHED: Final = "keys"  # of the strings that a parser remembers: ids and seeds are new each time


class Accepted(BaseModel):
    """A message from outside: an unknown field is an error that names it, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, cache_strings=CACHED)

    @field_validator("*", mode="before")
    @classmethod
    def _check_text(cls, value: object) -> object:
        """JSON can spell half a character and NUL, which other parts of the way cannot carry."""
        if isinstance(value, str) and "\0" in value:
            raise ValueError("the text has a NUL character")
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise ValueError("the text is no valid Unicode") from error
        return value


class Sent(BaseModel):
    """A message that we wrote ourselves, perhaps with another version: unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, cache_strings=CACHED)
