"""Each family's network gives the same logits however its work is divided, as far as its design allows."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from oar_core.models.base import Backbone, Commit, Commits, Condition, Features, Prefix, Queries, Query
from oar_core.models.features import FeatureConditioner
from oar_core.models.load import load_model
from oar_core.models.lpd.backbone import LpdBackbone
from oar_core.models.model import in_number_format
from oar_core.nn.kv_cache import KVCache
from oar_core.nn.packed import packed_twin
from tests.models.folders import BACKBONES, NUM_CODES, NUM_TOKENS, write_caption_model, write_golden_model

CAPTIONS = "llamagen of captions"
CPU = torch.device("cpu")
CLOSE = {"atol": 2e-5, "rtol": 0}
SIZES = [(1, 2, 2, 3, 4, 4), (4, 4, 4, 4), (1,) * NUM_TOKENS, (1, 1, 6, 8)]


@pytest.fixture(scope="module", params=[*sorted(BACKBONES), CAPTIONS])
def backbone(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    if request.param == CAPTIONS:
        write_caption_model(folder, FeatureConditioner(120), FeatureConditioner.kind)
    else:
        write_golden_model(request.param, folder)
    return load_model(folder, "cpu", torch.float32).backbone


@dataclass(frozen=True)
class Row:
    prefix: Prefix
    order: Tensor
    tokens: Tensor
    sizes: tuple[int, ...]

    @property
    def bounds(self) -> list[tuple[int, int]]:
        ends = torch.tensor(self.sizes).cumsum(0).tolist()
        return [(end - size, end) for end, size in zip(ends, self.sizes)]


def rows_of(backbone: Backbone, count: int = 4) -> list[Row]:
    """Pictures of different conditions, orders and groups, as far as the family has any choice of these."""
    generator = torch.Generator().manual_seed(3)
    spec, rows = backbone.spec, []
    for index in range(count):
        prefix: Prefix = (3 + index,)
        if spec.feature_width:
            features = Features(torch.randn(2 + 5 * index, spec.feature_width, generator=generator))
            prefix = features if index % 2 else spec.unconditional_beside(features, tuple(range(120)))
        shuffled, tokens = (torch.randperm(NUM_TOKENS, generator=generator) for _ in range(2))
        order = shuffled if spec.has_free_order else torch.arange(NUM_TOKENS)
        sizes = SIZES[index % len(SIZES)] if spec.has_free_order else (1,) * NUM_TOKENS
        rows.append(Row(prefix, order, tokens * 3 % NUM_CODES, sizes))
    return rows


def commit_of(rows: list[Row], steps: list[int | None]) -> Commit:
    """Of each row the group of that step; pads are a token of their own."""
    spans = [(0, 0) if step is None else row.bounds[step] for row, step in zip(rows, steps)]
    width = max(end - start for start, end in spans)
    token_ids, positions = torch.ones(len(rows), width, dtype=torch.long), torch.full((len(rows), width), 2)
    for place, (row, (start, end)) in enumerate(zip(rows, spans)):
        token_ids[place, : end - start] = row.tokens[start:end]
        positions[place, : end - start] = row.order[start:end]
    counts = torch.tensor([end - start for start, end in spans])
    return Commit(token_ids, positions, counts, counts[:, None].expand(-1, width).contiguous())


def begin(backbone: Backbone, cache: KVCache, slots: list[int], rows: list[Row]) -> None:
    nothing = commit_of(rows, [None] * len(rows))
    backbone.prefill(cache, torch.tensor(slots), Condition.stack([row.prefix for row in rows], CPU), nothing)


def decode(backbone: Backbone, rows: list[Row], slots: list[int] | None = None, cache: KVCache | None = None):
    """The logits of each row by rank, all rows stepping together; a row that is done leaves."""
    cache = cache or backbone.new_cache(len(rows))
    slots = slots or list(range(len(rows)))
    begin(backbone, cache, slots, rows)
    answers: list[list[Tensor]] = [[] for _ in rows]
    for step in range(max(len(row.sizes) for row in rows)):
        running = [index for index, row in enumerate(rows) if step < len(row.sizes)]
        present = [rows[index] for index in running]
        commit = commit_of(present, [step - 1 if step else None] * len(present))
        spans = [row.bounds[step] for row in present]
        query = Query(
            torch.cat([row.order[start:end] for row, (start, end) in zip(present, spans)]),
            tuple(end - start for start, end in spans),
        )
        logits = backbone.step(cache, torch.tensor([slots[index] for index in running]), commit, query)
        for index, part in zip(running, logits.split(query.counts)):
            answers[index].append(part)
    return [torch.cat(parts) for parts in answers]


@torch.no_grad()
def trained(backbone: Backbone, row: Row) -> Tensor:
    condition = Condition.stack([row.prefix], CPU)
    return backbone(condition, row.tokens[None], row.order[None])[0]


def test_a_row_of_a_batch_decodes_as_alone(backbone):
    rows = rows_of(backbone)
    for found, row in zip(decode(backbone, rows), rows):
        torch.testing.assert_close(found, decode(backbone, [row])[0], **CLOSE)


def test_slots_of_any_place_and_former_contents_decode_alike(backbone):
    rows = rows_of(backbone, 3)
    cache = backbone.new_cache(2)
    cache.grow(7)
    cache.keys.normal_(std=50)
    cache.values.normal_(std=50)
    wanted = decode(backbone, rows)
    for _ in range(2):  # the second time in slots that held pictures
        for found, row in zip(decode(backbone, rows, [5, 1, 3], cache), wanted):
            torch.testing.assert_close(found, row, **CLOSE)


def test_one_a_step_gives_the_training_pass(backbone):
    for row in rows_of(backbone):
        single = Row(row.prefix, row.order, row.tokens, (1,) * NUM_TOKENS)
        torch.testing.assert_close(decode(backbone, [single])[0], trained(backbone, row), **CLOSE)


def test_in_groups_the_training_pass_holds_as_far_as_the_design_says(backbone):
    """What a family sees in a group decides what of its training pass, which knows no groups, it gives in one."""
    spec = backbone.spec
    for row in rows_of(backbone):
        found, wanted = decode(backbone, [row])[0], trained(backbone, row)
        starts = [start for start, _ in row.bounds]
        same = (found - wanted).abs().amax(dim=1) < 2e-5
        if spec.queries is Queries.NEXT:  # groups are of one position
            assert same.all()
        elif spec.queries is Queries.EARLIER:
            # A question sees those before it in its step, without their tokens: the first one alone is as trained.
            # What is committed does not tell the groups, so that holds in every step.
            assert same[starts].all()
            assert not same[[rank for rank in range(NUM_TOKENS) if rank not in starts]].any()
        elif spec.queries is Queries.GROUP:
            # Its training pass is told the groups.
            assert isinstance(backbone, LpdBackbone)
            groups = torch.arange(len(row.sizes)).repeat_interleave(torch.tensor(row.sizes))
            with torch.no_grad():
                grouped = backbone(Condition.stack([row.prefix], CPU), row.tokens[None], row.order[None], groups)[0]
            torch.testing.assert_close(found, grouped, **CLOSE)
        else:
            # Tokens of a group see each other from the second layer on, where the training pass is causal: all is as
            # trained up to the first group of more than one token, and its first answer is that of the pass.
            assert spec.commits is Commits.GROUP
            assert same[starts[0]]
            assert same.all() == (max(row.sizes) == 1)


def test_what_is_committed_does_not_tell_its_groups_where_the_family_says_so(backbone):
    spec = backbone.spec
    row = rows_of(backbone, 1)[0]
    known = 8
    answers = []
    for sizes in ((known,), (1,) * known):
        cache, start = backbone.new_cache(1), 0
        begin(backbone, cache, [0], [row])
        for size in sizes:
            tokens, positions = (table[None, start : start + size] for table in (row.tokens, row.order))
            counts = torch.tensor([size])
            commit = Commit(tokens, positions, counts, torch.full((1, size), size))
            backbone.step(cache, torch.tensor([0]), commit, Query(row.order[:0], (0,)))
            start += size
        asked = Query(row.order[known : known + 1], (1,))
        answers.append(backbone.step(cache, torch.tensor([0]), commit.emptied, asked))
    difference = (answers[0] - answers[1]).abs().max()
    assert difference < 2e-5 if spec.has_free_commits else difference > 1e-2


def test_laid_out_weights_and_other_number_formats_stay_close(backbone):
    row = rows_of(backbone, 1)[0]
    wanted = decode(backbone, [row])[0]
    torch.testing.assert_close(decode(packed_twin(backbone), [row])[0], wanted, atol=1e-4, rtol=0)
    for dtype, error in ((torch.bfloat16, 0.1), (torch.int8, 0.15)):
        other = in_number_format(copy.deepcopy(backbone), dtype)
        assert (decode(other, [row])[0].float() - wanted).abs().mean() < error
