"""`oar completion`: what a shell needs to complete `oar`'s words, printed as a script."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
PROGRAM, VARIABLE = "oar", "_OAR_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes `oar` in SHELL.

    \b
    bash: eval "$(oar completion bash)"            in ~/.bashrc
    zsh:  eval "$(oar completion zsh)"             in ~/.zshrc
    fish: oar completion fish | source             in ~/.config/fish/config.fish
    """
    maker = get_completion_class(shell)
    assert maker is not None, shell
    click.echo(maker(ctx.find_root().command, {}, PROGRAM, VARIABLE).source())
