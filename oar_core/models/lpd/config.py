"""The sizes of an LPD network."""

from dataclasses import dataclass

from oar_core.models.class_config import ClassTransformerConfig


@dataclass(frozen=True)
class LpdConfig(ClassTransformerConfig):
    """LPD-L unless changed."""
