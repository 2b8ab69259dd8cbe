"""The orders that a run keeps for its prompts: fitted to distilled ones, or searched."""

from dataclasses import dataclass

from oar_core.errors import CheckpointError, ConfigError
from oar_core.models.model import ORDER_TREE
from oar_core.models.oar.vqgan import VQGAN
from oar_core.order.tree import OrderTree
from oar_core.train.checkpoint import save_tensors
from oar_core.train.loop import CHECKPOINT
from oar_core.train.parallel import Processes, first_alone
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
        """Fits a tree to the distilled orders."""
        captioner = RunCaptions(self.run).captioner(0.0)
        fitted = fit_order_tree(load_orders(self.run.orders_folder), captioner, self.run.recipe.order_tree)
        save_tensors(self.run.orders_folder / ORDER_TREE, fitted.tree.tensors(), {})
        return fitted

    def search(self, config: CheapestOrderConfig) -> CheapestOrder:
        """One order for all prompts, by what its steps cost; kept as a fitted tree is. Raises ConfigError for a
        tokenizer whose codes are not vectors of one codebook."""
        tokenizer = self.run.tokenizer()
        captioner = RunCaptions(self.run).captioner(0.0)
        if not isinstance(tokenizer, VQGAN):
            raise ConfigError("the search for the cheapest order reads the codebook of a native tokenizer")
        found = search_order(captioner, tokenizer.quantizer.codebook.float().cpu(), self.run.spec.grid, config)
        save_tensors(self.run.orders_folder / ORDER_TREE, found.tree.tensors(), {})
        return found

    def keep(self, stage: str) -> OrderTree:
        """The latest tree, in the folder of a stage that is trained on it: a tree that is fitted later is another.

        A stage that was trained on its tree keeps it. Raises CheckpointError where the latest one is another, and where
        none was fitted."""
        folder = self.run.folder / stage
        with first_alone():
            own, latest = self.run.own_order_tree(stage), self.run.latest_order_tree
            is_begun = (folder / CHECKPOINT).exists()
            if is_begun and own is not None and (latest is None or latest.is_same(own)):
                return own
            if latest is None:
                raise CheckpointError(f"{self.run.orders_folder} holds no order tree; run `oar train order_tree` first")
            if is_begun:
                raise CheckpointError(
                    f"{folder} was trained on other orders than those of {self.run.orders_folder / ORDER_TREE}; "
                    f"to train on these, remove {folder} or take another run folder"
                )
            if Processes.current().is_first:
                save_tensors(folder / ORDER_TREE, latest.tensors(), {})
        return latest
