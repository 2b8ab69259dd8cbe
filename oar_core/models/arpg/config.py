"""The sizes of an ARPG network, and the native network that it is."""

from dataclasses import dataclass

from oar_core.config import BackboneConfig
from oar_core.models.class_config import ClassTransformerConfig


@dataclass(frozen=True)
class ArpgConfig(ClassTransformerConfig):
    num_layers: int = 12  # of each of the two stacks
    ffn_width: int = 2816

    @property
    def native(self) -> BackboneConfig:
        return BackboneConfig(
            grid=self.grid,
            vocab_size=self.vocab_size,
            condition_vocab=self.num_classes + 1,
            max_condition=1,
            width=self.width,
            num_heads=self.num_heads,
            num_context_layers=self.num_layers,
            num_query_layers=self.num_layers,
            norm="rms",
            ffn_width=self.ffn_width,
            rotary_base=10_000.0,
            has_place_tables=False,
            has_condition_keys=False,
            has_mutual_commits=True,
        )
