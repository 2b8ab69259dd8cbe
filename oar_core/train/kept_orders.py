"""The orders that a run keeps for its prompts: fitted to distilled ones, or searched."""

from dataclasses import dataclass

from oar_core.errors import CheckpointError, ConfigError
from oar_core.models.model import ORDER_TREE
from oar_core.models.oar.vqgan import VQGAN
from oar_core.order.tree import OrderTree
from oar_core.train.checkpoint import save_tensors
from oar_core.train.parallel import first_alone
from oar_core.train.run import Run
from oar_core.train.run_captions import RunCaptions
from oar_core.train.stages.cheapest_order import CheapestOrder, CheapestOrderConfig, search_order
from oar_core.train.stages.order_distill import load_orders
from oar_core.train.stages.order_tree import FittedTree, fit_order_tree


@dataclass(frozen=True)
class KeptOrders:
    """A tree of orders beside the distilled ones, and a copy of it in each stage that is taught them."""

    run: Run

    def fit(self) -> FittedTree:
        """To the distilled orders."""
        captioner = RunCaptions(self.run).captioner(self.run.tokens("train"), 0.0)
        fitted = fit_order_tree(load_orders(self.run.orders_folder), captioner, self.run.recipe.order_tree)
        save_tensors(self.run.orders_folder / ORDER_TREE, fitted.tree.tensors(), {})
        return fitted

    def search(self, config: CheapestOrderConfig) -> CheapestOrder:
        """One order for all prompts, by what its steps cost; kept as a fitted tree is. Raises ConfigError for a
        tokenizer whose codes are not vectors of one codebook."""
        tokenizer = self.run.tokenizer()
        captioner = RunCaptions(self.run).captioner(self.run.tokens("train"), 0.0)
        if not isinstance(tokenizer, VQGAN):
            raise ConfigError("the search for the cheapest order reads the codebook of a native tokenizer")
        found = search_order(captioner, tokenizer.quantizer.codebook.float().cpu(), self.run.spec.grid, config)
        save_tensors(self.run.orders_folder / ORDER_TREE, found.tree.tensors(), {})
        return found

    def keep(self, stage: str) -> OrderTree:
        """In the folder of a stage that is trained on it: a tree that is fitted later is another. Raises
        CheckpointError where none was fitted."""
        with first_alone():
            tree = self.run.order_tree(stage)
            if tree is None:
                raise CheckpointError(f"{self.run.orders_folder} holds no order tree; run `oar train order_tree` first")
            save_tensors(self.run.folder / stage / ORDER_TREE, tree.tensors(), {})
        return tree
