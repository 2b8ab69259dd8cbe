"""The folders of a run: one for each stage, with what tells its arms apart."""

from oar_core.order.plan import ORDERS
from oar_core.train.stages.order_finetune import DISTILLED

TOKENIZER_STAGE, DECODER_STAGE = "tokenizer", "decoder"
ANY_ORDER_STAGE, FINETUNE_STAGE = "any_order", "order_finetune"
EVALUATOR_STAGE, SCRATCH_STAGE = "evaluator", "from_scratch"
VIEWS_STAGE, COARSE_TO_FINE_STAGE = "views", "coarse_to_fine"


def finetune_stage(
    orders: str, seed: int = 0, *, score: str | None = None, context_noise: float = 0.0, consensus: float = 0.0
) -> str:
    """The folder of a fine-tuning arm."""
    name = FINETUNE_STAGE if orders == DISTILLED else f"{FINETUNE_STAGE}-{orders}"
    name += f"-{score}" if score else ""
    name += f"-consensus{consensus:g}" if consensus else ""
    name += f"-noise{context_noise:g}" if context_noise else ""
    return _seeded(name, seed)


def scratch_stage(orders: str, seed: int = 0) -> str:
    """The folder of a backbone that never saw another order."""
    return _seeded(f"{SCRATCH_STAGE}-{orders}", seed)


def taught_order(stage: str, *, has_policy: bool) -> str:
    """The order to draw in with a stage's backbone: the one that it was fine-tuned on. Of its own order and of any
    order, that is the policy's, or a random one where there is no policy."""
    named = stage.partition("-")[2].split("-")[0]
    if named in ORDERS:
        return named
    return DISTILLED if has_policy else "random"


def _seeded(name: str, seed: int) -> str:
    return f"{name}-seed{seed}" if seed else name


def policy_folder(stage: str) -> str:
    return f"{stage}-policy"
