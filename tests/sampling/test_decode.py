import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oar_core.models.base import Commit, Query
from oar_core.order.certainty import log_odds_of_best
from oar_core.order.plan import DEFAULT_CANDIDATES
from oar_core.order.repulsion import surest
from oar_core.order.rules import FIXED, RULES, OrderRule
from oar_core.sampling.decode import DecodeRow, Slots, StepLoad, decode_step
from oar_core.sampling.prefill import PrefillRow, prefill
from oar_core.sampling.sampler import SamplingParams
from tests.engine.backbones import HashBackbone


def make_row(slots: Slots, rule: OrderRule = RULES["confidence"], **changes: object) -> DecodeRow:
    values = {
        "slots": slots,
        "commit_positions": (),
        "commit_token_ids": (),
        "query": tuple(range(20)),
        "take": 4,
        "rule": rule,
        "sampling": SamplingParams(),
        "noise_key": 1,
        **changes,
    }
    return DecodeRow(**values)


@pytest.fixture
def primed():
    """A fake backbone and a cache of six slots, each with a condition of its own."""
    backbone = HashBackbone()
    cache = backbone.new_cache(6)
    prefill(backbone, cache, [PrefillRow(slot, (1 + slot,), (), ()) for slot in range(6)])
    return backbone, cache


def test_the_positions_chosen_do_not_depend_on_the_tokens_drawn(primed):
    wishes = [SamplingParams(temperature=t, top_k=k) for t in (0.0, 1.0, 50.0) for k in (0, 2)]
    groups = [
        decode_step(*primed, [make_row(Slots(0), sampling=wish, noise_key=key)])[0] for key, wish in enumerate(wishes)
    ]
    assert len({group.positions for group in groups}) == 1
    assert len({group.token_ids for group in groups}) > 1
    assert len({group.confidences for group in groups}) == 1


def test_confidence_takes_the_surest_of_all_positions_surest_first(primed):
    everywhere = decode_step(*primed, [make_row(Slots(0), take=20)])[0]
    few = decode_step(*primed, [make_row(Slots(0), take=5)])[0]
    assert list(everywhere.confidences) == sorted(everywhere.confidences, reverse=True)
    assert few.positions == everywhere.positions[:5]
    assert few.token_ids == everywhere.token_ids[:5]


def test_likelihood_keeps_the_draws_that_the_model_finds_likeliest(primed):
    backbone, cache = primed
    everywhere = make_row(Slots(0), FIXED, take=20)
    token_ids = torch.tensor(decode_step(backbone, cache, [everywhere])[0].token_ids)
    logits = backbone.step(cache, torch.tensor([0]), _no_commit(), Query.grid(torch.arange(20)[None]))
    likelihood = logits.log_softmax(-1).gather(-1, token_ids[:, None]).squeeze(-1)
    expected = likelihood.argsort(descending=True)[:4].tolist()
    kept = decode_step(backbone, cache, [make_row(Slots(0), RULES["likelihood"])])[0]
    assert list(kept.positions) == expected
    assert list(kept.token_ids) == token_ids[expected].tolist()


def test_likelihood_alone_lets_the_draw_choose_the_positions(primed):
    chosen = {
        rule: {decode_step(*primed, [make_row(Slots(0), rule, noise_key=key)])[0].positions for key in range(8)}
        for rule in (FIXED, *RULES.values())
    }
    assert len(chosen.pop(RULES["likelihood"])) > 1
    assert all(len(positions) == 1 for positions in chosen.values())


def test_distilled_asks_the_model_only_for_what_the_policy_puts_first(primed):
    backbone, cache = primed
    commit = {"commit_positions": (19, 18), "commit_token_ids": (1, 2), "query": tuple(range(18))}
    group = decode_step(backbone, cache, [make_row(Slots(0), RULES["distilled"], **commit)])[0]
    scores = backbone.score(cache, torch.tensor([0]), Query.grid(torch.arange(18)[None]))
    assert list(group.positions) == scores.argsort(descending=True)[:4].tolist()
    assert backbone.num_queries == 4
    listed = make_row(Slots(0), FIXED, query=group.positions)
    assert decode_step(backbone, cache, [listed])[0] == group


@pytest.mark.parametrize("candidates", [1, 3, DEFAULT_CANDIDATES])
@pytest.mark.parametrize(("take", "done"), [(2, 0), (1, 1), (5, 0)])
def test_of_the_policys_shortlist_the_model_takes_what_it_is_surest_of(primed, take, done, candidates):
    backbone, cache = primed
    scores = backbone.score(cache, torch.tensor([0]), Query.grid(torch.arange(20)[None]))
    short = scores.argsort(descending=True)[: candidates * (take + done) - done].tolist()
    row = make_row(Slots(0), RULES["shortlist"], take=take, begun=(0,) * done, candidates=candidates)
    group = decode_step(backbone, cache, [row])[0]
    assert backbone.num_queries == len(short)
    listed = make_row(Slots(0), RULES["confidence"], query=short, take=take)
    assert decode_step(backbone, cache, [listed])[0] == group


def test_under_guidance_the_conditional_memory_scores(primed):
    guided, alone = (
        decode_step(*primed, [make_row(slots, RULES["distilled"], sampling=SamplingParams(guidance=scale))])[0]
        for slots, scale in ((Slots(2, 4), 3.0), (Slots(2), 1.0))
    )
    other = decode_step(*primed, [make_row(Slots(4), RULES["distilled"])])[0]
    assert guided.positions == alone.positions != other.positions
    assert guided.token_ids != alone.token_ids


def entropies_of(primed, positions: tuple[int, ...]) -> torch.Tensor:
    backbone, cache = primed
    logits = backbone.step(cache, torch.tensor([0]), _no_commit(), Query.grid(torch.tensor([positions])))
    return torch.distributions.Categorical(logits=logits).entropy()


@pytest.mark.parametrize("rule", [FIXED, *RULES.values()])
@pytest.mark.parametrize("bound", [0.0, 1.0, 6.0, 1e6])
def test_an_adaptive_group_is_the_longest_whose_entropies_less_the_greatest_stay_within_the_bound(primed, rule, bound):
    whole = decode_step(*primed, [make_row(Slots(0), rule, take=20)])[0]
    group = decode_step(*primed, [make_row(Slots(0), rule, take=1, most=20, entropy_bound=bound)])[0]
    entropies = entropies_of(primed, whole.positions)
    excess = [(entropies[:k].sum() - entropies[:k].max()).item() for k in range(1, 21)]
    count = len(group.positions)
    assert group.positions == whole.positions[:count]
    assert group.token_ids == whole.token_ids[:count]
    assert excess[count - 1] <= bound + 1e-5
    assert count == 20 or excess[count] > bound - 1e-5


def test_an_adaptive_group_keeps_its_limits(primed):
    least = make_row(Slots(0), take=5, most=9, entropy_bound=0.0)
    greatest = make_row(Slots(1), take=5, most=9, entropy_bound=1e6)
    plain = make_row(Slots(2), take=3)
    assert [len(g.positions) for g in decode_step(*primed, [least, greatest, plain])] == [5, 9, 3]


def test_the_draws_do_not_change_how_many_positions_are_safe(primed):
    rows = [
        make_row(Slots(0), take=1, most=20, entropy_bound=5.0, noise_key=key, sampling=SamplingParams(temperature=t))
        for key, t in enumerate((0.0, 1.0, 30.0))
    ]
    groups = [decode_step(*primed, [row])[0] for row in rows]
    assert len({group.positions for group in groups}) == 1
    assert 1 < len(groups[0].positions) < 20


def test_a_fixed_group_is_decoded_as_listed_with_the_same_tokens(primed):
    chosen = decode_step(*primed, [make_row(Slots(0))])[0]
    listed = decode_step(*primed, [make_row(Slots(0), FIXED, query=chosen.positions)])[0]
    assert listed == chosen


def test_a_confidence_is_the_probability_of_the_likeliest_token_before_temperature(primed):
    backbone, cache = primed
    row = make_row(Slots(0), FIXED, query=(3, 7), take=2, sampling=SamplingParams(temperature=9.0, top_k=2))
    logits = backbone.step(cache, torch.tensor([0]), _no_commit(), Query.grid(torch.tensor([[3, 7]])))
    expected = logits.softmax(dim=-1).max(dim=-1).values.tolist()
    assert decode_step(backbone, cache, [row])[0].confidences == pytest.approx(expected, rel=1e-5)


def _no_commit() -> Commit:
    return Commit(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 0, dtype=torch.long), torch.tensor([0]))


def test_a_mixed_step_gives_each_row_what_it_gets_alone(primed):
    rows = [
        make_row(Slots(4), FIXED, query=(5, 1, 2), take=3),
        make_row(Slots(0, 3), sampling=SamplingParams(guidance=2.0, top_p=0.9), query=tuple(range(4, 16))),
        make_row(Slots(1), RULES["likelihood"], take=7),
        make_row(Slots(2, 5), RULES["distilled"], query=tuple(range(9)), sampling=SamplingParams(guidance=4.0)),
    ]
    assert decode_step(*primed, rows) == [decode_step(*primed, [row])[0] for row in rows]
    rows = [
        make_row(Slots(4), take=2, most=12, entropy_bound=3.0),
        make_row(Slots(0), RULES["distilled"], take=2),
        make_row(Slots(1, 3), RULES["distilled"], query=(2, 7, 9), take=3, sampling=SamplingParams(guidance=2.0)),
        make_row(Slots(2, 5), FIXED, query=(9,), take=1, sampling=SamplingParams(guidance=4.0)),
    ]
    assert decode_step(*primed, rows) == [decode_step(*primed, [row])[0] for row in rows]


def test_guidance_takes_a_second_row_and_one_takes_none(primed):
    backbone, cache = primed
    decode_step(backbone, cache, [make_row(Slots(0), sampling=SamplingParams(guidance=1.0))])
    assert backbone.num_step_rows == 1
    decode_step(backbone, cache, [make_row(Slots(1, 2), sampling=SamplingParams(guidance=2.0))])
    assert backbone.num_step_rows == 3


def test_each_rank_of_a_group_may_have_its_own_guidance(primed):
    """Beside a row that has one for all."""
    positions, scales = (3, 8, 1), (1.0, 2.5, 7.0)
    other = make_row(Slots(1, 2), FIXED, query=(4, 5), take=2, sampling=SamplingParams(guidance=2.0))
    row = make_row(Slots(0, 3), FIXED, query=positions, take=3, scales=scales)
    group, beside = decode_step(*primed, [row, other])
    alone = [
        decode_step(
            *primed, [make_row(Slots(0, 3), FIXED, query=(p,), take=1, sampling=SamplingParams(guidance=scale))]
        )
        for p, scale in zip(positions, scales)
    ]
    assert group.token_ids == tuple(one.token_ids[0] for (one,) in alone)
    assert group.confidences == pytest.approx([one.confidences[0] for (one,) in alone], abs=1e-5)
    assert beside == decode_step(*primed, [other])[0]


def test_guidance_zero_is_the_unconditional_picture(primed):
    guided = decode_step(*primed, [make_row(Slots(0, 3), sampling=SamplingParams(guidance=0.0))])
    assert guided == decode_step(*primed, [make_row(Slots(3))])


def test_committed_tokens_of_rows_with_different_counts_reach_their_slots(primed):
    rows = [
        make_row(Slots(0), commit_positions=(1, 2), commit_token_ids=(5, 6), query=(3, 4), take=1),
        make_row(Slots(1), commit_positions=(7,), commit_token_ids=(8,), query=(3, 4, 5), take=2),
    ]
    after = decode_step(*primed, rows)
    fresh = HashBackbone()
    cache = fresh.new_cache(2)
    prefill(fresh, cache, [PrefillRow(0, (1,), (1, 2), (5, 6)), PrefillRow(1, (2,), (7,), (8,))])
    bare = {"commit_positions": (), "commit_token_ids": ()}
    assert after == decode_step(
        fresh, cache, [make_row(Slots(0), query=(3, 4), take=1, **bare), make_row(Slots(1), query=(3, 4, 5), take=2)]
    )


def test_no_rows_decode_nothing(primed):
    assert decode_step(*primed, []) == []


def test_log_odds_tell_apart_what_probabilities_round_to_one():
    logits = torch.full((1, 2, 4), -20.0)
    logits[0, 0, 1], logits[0, 1, 2] = 20.0, 25.0
    log_odds = log_odds_of_best(logits)
    assert log_odds.sigmoid().tolist() == [[1.0, 1.0]]
    assert surest(log_odds, torch.tensor([2]), 2).tolist() == [[1, 0]]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.data())
def test_the_surest_come_first_and_ties_go_by_position_whatever_the_padding(scores, data):
    padding = data.draw(st.integers(0, 4))
    take = data.draw(st.integers(1, len(scores)))
    row = torch.tensor([[*map(float, scores), *[99.0] * padding]])
    chosen = surest(row, torch.tensor([len(scores)]), take)[0].tolist()
    assert chosen == sorted(range(len(scores)), key=lambda column: (-scores[column], column))[:take]


def test_a_steps_load_counts_what_each_slot_asks(primed):
    """A guided picture is asked twice; rows of all widths share a call, and what they ask is a list without pads."""
    load = StepLoad()
    rows = [
        make_row(Slots(0), FIXED, query=(1, 2, 3), take=3),
        make_row(Slots(1, 2), FIXED, query=(4,), take=1, sampling=SamplingParams(guidance=2.0)),
        make_row(Slots(3), RULES["confidence"], query=tuple(range(12))),
    ]
    decode_step(*primed, rows, load)
    assert load == StepLoad(slots=4, positions=3 + 2 + 12, pads=0)
    decode_step(*primed, rows[2:], load)
    assert load == StepLoad(slots=5, positions=3 + 2 + 12 + 12, pads=0)
