"""The recipes of published families: group sizes and the guidance of each group or position, to the number."""

import numpy as np
import pytest

from oar_core.errors import StepsError
from oar_core.models.base import BackboneSpec, GridLayout, GuidanceShare
from oar_core.models.load import family
from oar_core.order.plan import PlanSpec
from oar_core.sampling.decode import DecodedGroup, Slots
from oar_core.sampling.generate import generate
from oar_core.sampling.progress import PictureProgress
from oar_core.sampling.request import KnownTokens, SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from tests.models.folders import BACKBONES
from tests.models.golden import Golden

SCALE = 4.0
NOTHING = KnownTokens()


def decoded(spec: BackboneSpec, steps: int, *, schedule: str = "linear", known: KnownTokens = NOTHING):
    """Sizes of the groups, and the guidance of each position by rank."""
    plan = PlanSpec("random", steps, "published")
    sampling = SamplingParams(guidance=SCALE, guidance_schedule=schedule)
    progress = PictureProgress(SequenceRequest("r", (0,), 3, 0, plan, sampling, known), spec)
    sizes, scales = [], []
    while not progress.is_complete:
        row = progress.next_row(Slots(0, 1))
        sizes.append(row.take)
        scales += row.scales or [row.sampling.guidance] * row.take
        progress.accept(_group(row.query))
    return sizes, scales


def _group(positions):
    return DecodedGroup(tuple(positions), (0,) * len(positions), (1.0,) * len(positions))


def spec_of(name: str) -> BackboneSpec:
    config, _ = BACKBONES[name]
    return family(name).build_backbone(name, config.to_dict()).spec


def test_arpg_groups_and_their_guidance_are_those_of_its_sampler():
    golden = Golden.load("arpg")
    sizes, scales = decoded(spec_of("arpg"), 5)
    assert sizes == golden.vectors["arccos_group_sizes"].tolist()
    np.testing.assert_allclose(scales, np.repeat(golden.vectors["arccos_scale_of_group"], sizes))


def test_lpd_guides_each_position_by_its_rank():
    golden = Golden.load("lpd")
    _, scales = decoded(spec_of("lpd"), 16)
    np.testing.assert_allclose(scales, golden.vectors["parallel_scale_of_rank"])
    _, scales = decoded(spec_of("lpd"), 5)
    np.testing.assert_allclose(scales, golden.vectors["parallel_scale_of_rank"])


@pytest.mark.parametrize(("length", "steps", "first", "last"), [(256, 20, 1, 20), (1024, 48, 1, 34)])
def test_lpd_has_a_list_for_its_published_numbers_of_steps(length, steps, first, last):
    sizes = spec_of("lpd").published_groups(steps, length)
    assert (sizes[0], sizes[-1], len(sizes), sum(sizes)) == (first, last, steps, length)
    assert spec_of("lpd").published_groups(steps + 1, length) is None


def test_an_edit_or_another_number_of_steps_falls_back_to_the_cosine():
    spec = spec_of("lpd")
    known = KnownTokens((0, 5, 10), (1, 1, 1))
    sizes, scales = decoded(spec, 4, known=known)
    assert (len(sizes), sum(sizes)) == (4, 13)
    assert scales[0] == 1


def test_a_family_without_published_groups_refuses_them():
    spec = BackboneSpec(GridLayout(4, 4), 64, 11, 1)
    with pytest.raises(StepsError, match="family has none"):
        decoded(spec, 4)


def test_guidance_that_is_read_at_the_end_of_a_group_holds_for_the_last_one_too():
    spec = BackboneSpec(
        GridLayout(4, 4), 64, 11, 1, guidance_share=GuidanceShare.END, published_groups=lambda steps, length: None
    )
    _, scales = decoded(spec, 4)
    assert scales[-1] == SCALE
    _, scales = decoded(spec, 4, schedule="constant")
    assert set(scales) == {SCALE}


def test_the_loop_guides_the_logits_of_each_rank_with_its_own_scale():
    """With the guided logits of the authors' own code: the likeliest tokens are theirs."""
    golden = Golden.load("lpd")
    config, native_state = BACKBONES["lpd"]
    backbone = family("lpd").build_backbone("lpd", config.to_dict()).eval()
    backbone.load_state_dict(native_state(golden.state, config))
    order = golden.vectors["orders"]
    first = order[0].tolist()
    known = KnownTokens(tuple(first[:15]), tuple(golden.vectors["single_tokens_by_rank"][0][:15].tolist()), 15, 15)
    request = SequenceRequest(
        "r", (int(golden.vectors["class_ids"][0]),), 0, 0,
        PlanSpec(tuple(first), 16, "constant"),
        SamplingParams(guidance=SCALE, guidance_schedule="linear", temperature=0.0), known,
    )  # fmt: skip
    (made,) = generate(backbone, [request], (config.num_classes,))
    wanted = golden.vectors["single_logits_guided"][0, 15].argmax()
    assert made[first[15]] == wanted
