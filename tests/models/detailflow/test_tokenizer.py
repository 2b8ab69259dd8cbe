"""The tokenizer whose tokens run from coarse to fine."""

from dataclasses import replace

import pytest
import torch

from oar_core.detail_config import DetailTokenizerConfig, TokenGroups
from oar_core.errors import ConfigError
from oar_core.models.patches import cut, join
from oar_core.models.prefix_mask import encoder_mask
from oar_core.models.prefix_resolution import in_whole_patches, resolution
from tests.models.detailflow.tiny import TOKENIZER as TINY
from tests.models.detailflow.tiny import tokenizer


@pytest.mark.parametrize(
    ("num_tokens", "expected"),
    [
        (64, {1: 1, 2: 2, 4: 5, 8: 11, 16: 22, 24: 32, 32: 41, 40: 49, 48: 55, 56: 61, 64: 64}),
        (32, {1: 1, 4: 9, 8: 21, 12: 31, 16: 40, 20: 48, 24: 55, 28: 61, 32: 64}),
    ],
)
def test_a_prefix_has_the_published_resolution(num_tokens: int, expected: dict[int, int]) -> None:
    assert {count: resolution(count, num_tokens, 64, 1.5) for count in expected} == expected


def test_a_canvas_is_a_resolution_in_whole_patches() -> None:
    sizes = {1: 8, 2: 8, 4: 8, 8: 16, 16: 24, 24: 32, 32: 48, 40: 56, 48: 56, 56: 64, 64: 64}
    assert {count: in_whole_patches(resolution(count, 64, 64, 1.5), 8) for count in sizes} == sizes


def test_groups_say_what_each_step_draws_and_what_each_token_sees() -> None:
    groups = TokenGroups(8, 2)
    assert groups.sizes == (1, 1, 2, 2, 2)
    assert groups.ends == (1, 2, 4, 6, 8)
    assert groups.limits == (1, 2, 4, 4, 6, 6, 8, 8)
    assert [groups.whole(count) for count in range(9)] == [0, 1, 2, 2, 4, 4, 6, 6, 8]
    together = TokenGroups(8, 4, has_causal_first=False)
    assert (together.sizes, together.limits) == ((4, 4), (4, 4, 4, 4, 8, 8, 8, 8))
    assert len(TokenGroups(64, 8).sizes) == 8 + 64 // 8 - 1 == 15
    with pytest.raises(ConfigError, match="9 tokens do not divide into groups of 2"):
        TokenGroups(9, 2)


def test_who_sees_whom_is_as_written_out() -> None:
    written = """
        11.. ....
        11.. ....
        111. ....
        1111 ....
        1111 11..
        1111 11..
        1111 1111
        1111 1111
    """
    rows = ["".join(line.split()) for line in written.split("\n") if line.strip()]
    table = torch.tensor([[symbol == "1" for symbol in row] for row in rows])
    found = encoder_mask(2, TokenGroups(6, 2).limits)
    assert found.equal(table)


def test_patches_are_cut_and_joined() -> None:
    images = torch.randn(2, 3, 8, 12)
    patches = cut(images, 4)
    assert patches.shape == (2, 6, 48)
    assert patches[0, 4].equal(images[0, :, 4:8, 4:8].flatten())
    assert join(patches, (2, 3), 4).equal(images)


@pytest.mark.parametrize("config", [TINY, replace(TINY, has_causal_first=False), replace(TINY, group_size=1)])
def test_a_token_never_depends_on_tokens_of_later_steps(config: DetailTokenizerConfig) -> None:
    network, images = tokenizer(config), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        memory = network.read(images)
        before = network.describe(memory)
        for changed in range(config.num_tokens):
            kept = network.encoder.queries[changed].clone()
            network.encoder.queries[changed] = torch.randn(config.width)
            after = network.describe(memory)
            network.encoder.queries[changed] = kept
            is_same = (after - before).abs().amax(dim=(0, 2)) < 1e-6
            sees = [limit > changed for limit in config.groups.limits]
            assert is_same.tolist() == [not seen for seen in sees]


def test_without_an_order_every_token_depends_on_all() -> None:
    network, images = tokenizer(replace(TINY, is_causal=False)), torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        before = network.describe(network.read(images))
        network.encoder.queries[7] = torch.randn(16)
        assert ((network.describe(network.read(images)) - before).abs().amax(dim=(0, 2)) > 1e-6).all()


def test_patches_never_see_tokens() -> None:
    """One pass over the patches serves both passes over the tokens: the same numbers as all of them in one pass."""
    network, images = tokenizer(), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        memory = network.read(images)
        before = [keys.clone() for keys in memory.keys]
        network.encoder.queries.normal_()
        network.describe(memory)
        assert all(old.equal(new) for old, new in zip(before, network.read(images).keys))


def test_a_second_pass_answers_for_what_follows_the_given_prefix() -> None:
    network, images = tokenizer(), torch.randn(2, 3, 16, 16)
    prefix = torch.nn.functional.normalize(torch.randn(2, 4, 8), dim=-1)
    with torch.no_grad():
        memory = network.read(images)
        rest = network.describe_again(memory, prefix)
        assert rest.shape == (2, 4, 8)
        assert (network.describe_again(memory, -prefix) - rest).abs().max() > 1e-3
        swapped = torch.stack([prefix[:, 1], prefix[:, 0], *prefix[:, 2:].unbind(1)], dim=1)
        assert (network.describe_again(memory, swapped) - rest).abs().max() > 1e-3, "each stands in its place"
        assert network.describe_again(memory, prefix[:, :2]).shape == (2, 6, 8)


@pytest.mark.parametrize(("count", "side"), [(1, 4), (2, 4), (4, 12), (6, 16), (8, 16)])
def test_a_prefix_is_painted_on_a_canvas_of_its_own(count: int, side: int) -> None:
    network = tokenizer()
    assert network.canvas_size(count) == (side, side)
    with torch.no_grad():
        assert network.paint(torch.randn(3, count, 8)).shape == (3, 3, side, side)


def test_a_partial_picture_is_its_known_prefix_whatever_comes_behind() -> None:
    network = tokenizer()
    token_ids = torch.randint(32, (5, 8))
    lengths = torch.tensor([0, 1, 5, 8, 3])  # 5 is no prefix that there is: 4 are shown
    known = torch.arange(8) < lengths[:, None]
    with torch.no_grad():
        images = network.decode_partial(token_ids, known)
        assert images.shape == (5, 3, 16, 16)
        assert images[0].eq(0).all()
        for row, length in enumerate(lengths.tolist()):
            other = torch.where(known[row], token_ids[row], (token_ids[row] + 1) % 32)[None]
            alone = network.decode_partial(other, known[row][None])
            assert (alone[0] - images[row]).abs().max() < 1e-5, f"prefix of {length}"
        assert (images[3] - network.decode(token_ids[3:4])[0]).abs().max() < 1e-5
        four = torch.arange(8)[None] < 4
        assert (network.decode_partial(token_ids[2:3], four)[0] - images[2]).abs().max() < 1e-5


def test_pictures_need_not_be_square() -> None:
    network = tokenizer(replace(TINY, image_size=(16, 8)))
    with torch.no_grad():
        token_ids = network.encode(torch.randn(2, 3, 16, 8))
        assert token_ids.shape == (2, 8)
        assert network.decode(token_ids).shape == (2, 3, 16, 8)
    assert network.resolution(4) == (9, 4)


def test_the_decoder_alone_changes_its_number_format() -> None:
    network = tokenizer()
    token_ids, images = torch.randint(32, (1, 8)), torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        wide, encoded = network.decode(token_ids), network.encode(images)
        network.decode_in(torch.bfloat16)
        assert network.encode(images).equal(encoded)
        assert (network.decode(token_ids).float() - wide).abs().max() < 0.1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch_size": 5}, "not a multiple of patch_size 5"),
        ({"num_heads": 3}, "is not a multiple of num_heads 3"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"num_tokens": 1, "group_size": 1}, "at least 2 tokens"),
        ({"encoder_layers": 0}, "are positive"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        replace(TINY, **changes)


def test_vectors_are_moved_apart_by_what_training_sees_and_by_nothing_else() -> None:
    network = tokenizer()
    images = torch.randn(64, 3, 16, 16)
    with torch.no_grad():
        before = network.describe(network.read(images))
        assert network.describe(network.read(images)).equal(before), "in use nothing moves"
        network.train()
        for _ in range(50):
            spread = network.describe(network.read(images))
        assert spread.mean(0).abs().max() < 0.05
        assert (spread.std(0) - 1).abs().max() < 0.1
        network.eval()
        after = network.describe(network.read(images))
        assert network.describe(network.read(images)).equal(after)
        assert len(network.encode(images).unique()) > 24, "of 32 codes"
        # A picture's tokens are its own in training too, but for what moves.
        alone = network.describe(network.read(images[:1]))
        assert (alone[0] - after[0]).abs().max() < 1e-4
