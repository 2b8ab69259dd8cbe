"""`oar eval`: the library's measurements, and what a server may draw for them."""

from oar_core.cli.evaluate import evaluate
from server.cli.export import export

evaluate.add_command(export)

__all__ = ["evaluate"]
