"""An error of the server, the client or the library as the end of a command."""

import click

from oar_client.errors import OarError
from oar_wire.error import ServerError


class CommandFailed(click.ClickException):
    """Ends the command with the error's message and its exit code."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        if isinstance(error, (OarError, ServerError)):
            self.exit_code = error.exit_code  # pyright: ignore[reportAttributeAccessIssue]
