"""Loss terms shared by the stages."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def paired_logistic(better: Float[Tensor, "*S"], worse: Float[Tensor, "*S"]) -> Float[Tensor, ""]:
    """Loss of one side whose logits should be above the other's, place by place.

    Both players of the relativistic adversarial game (Jolicoeur-Martineau 2019, arXiv 1807.00734) play for it, with
    sides changed. A picture and its reconstruction differ in what was lost alone, so that their difference is all that
    the logits have to tell.
    """
    return F.softplus(worse.float() - better.float()).mean()


def feature_distance(real: list[Tensor], fake: list[Tensor]) -> Float[Tensor, ""]:
    """Mean over layers of the L1 distance of features, each layer scaled by its own mean size.

    A learned similarity metric (Larsen et al. 2016, arXiv 1512.09300): the features are the discriminator's, so that
    no network trained on other people's pictures is needed.
    """
    terms = [
        (a.float().detach() - b.float()).abs().mean() / a.float().detach().abs().mean().clamp_min(1e-3)
        for a, b in zip(real, fake, strict=True)
    ]
    return sum(terms[1:], terms[0]) / len(terms)


def token_cross_entropy(logits: Float[Tensor, "B L V"], token_ids: Int[Tensor, "B L"]) -> Float[Tensor, ""]:
    """Mean over tokens, in nats."""
    return F.cross_entropy(logits.flatten(0, 1).float(), token_ids.flatten())


def plackett_luce(scores: Float[Tensor, "B K L"], ranks: Int[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Nats that it takes to name the position of each of K ranks among those that are not placed before it.

    `scores[b, k]` are given at rank `ranks[b, k]`, of all positions in decode order. With the scores of every rank the
    sum is the negative log-likelihood of the order under the model of Plackett (1975) and Luce (1959), whose scores
    here depend on what has been decoded.
    """
    placed = torch.arange(scores.shape[-1], device=scores.device) < ranks[..., None]
    chosen = scores.gather(-1, ranks[..., None]).squeeze(-1)
    return scores.masked_fill(placed, -torch.inf).logsumexp(dim=-1) - chosen


def top_one(
    scores: Float[Tensor, "B K L"], target: Float[Tensor, "B K L"], ranks: Int[Tensor, "B K"]
) -> Float[Tensor, "B K"]:
    """Nats of cross-entropy between who comes next by softmax of the wanted scores and by that of the given ones.

    Scores are of all positions in decode order; those that are placed before each of K ranks take no part. The top-one
    loss of ListNet (Cao et al. 2007, "Learning to rank: from pairwise approach to listwise approach").
    """
    placed = torch.arange(scores.shape[-1], device=scores.device) < ranks[..., None]
    shares = target.masked_fill(placed, -torch.inf).softmax(dim=-1)
    nats = -scores.masked_fill(placed, -torch.inf).log_softmax(dim=-1)
    return (shares * nats.masked_fill(placed, 0)).sum(dim=-1)
