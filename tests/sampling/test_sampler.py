import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oar_core.errors import SamplingError
from oar_core.sampling.guidance import guide
from oar_core.sampling.noise import gumbel, noise_key
from oar_core.sampling.sampler import SamplingParams, SamplingRows, ranked, sample, truncated

CPU = torch.device("cpu")
VOCAB = 12

params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.05, 0.7, 1.0, 3.0]),
    top_k=st.integers(0, VOCAB + 3),
    top_p=st.sampled_from([1.0, 0.95, 0.6, 0.2, 1e-60]),
)


def stack(wishes: list[SamplingParams]) -> SamplingRows:
    return SamplingRows.stack(wishes, VOCAB, CPU)


def plain_kept(logits: list[float], wish: SamplingParams) -> set[int]:
    """What top-k and then top-p leave, by the book; codes that tie with the last one that is kept stay."""
    ranked = sorted(range(len(logits)), key=lambda code: -logits[code])[: wish.top_k or None]
    temperature = max(wish.temperature, 1e-6)
    weights = [math.exp((logits[code] - logits[ranked[0]]) / temperature) for code in ranked]
    least, reached = math.inf, 0.0
    for code, weight in zip(ranked, weights):
        if reached >= wish.top_p and wish.top_p < 1.0:
            break
        least = logits[code]
        reached += weight / sum(weights)
    return {code for code, logit in enumerate(logits) if logit >= least}


@settings(max_examples=60)
@given(wishes=st.lists(params, min_size=1, max_size=5), seed=st.integers(0, 10**6))
def test_rows_of_different_wishes_are_each_truncated_as_by_the_book(wishes, seed):
    # Multiples of 1/4 with repeats: ties are common, and cumulative probabilities stay clear of the thresholds.
    logits = torch.randint(-12, 12, (len(wishes), 2, VOCAB), generator=torch.Generator().manual_seed(seed)) / 4
    rows = stack(wishes)
    mask = truncated(logits, ranked(logits, rows), rows).isfinite()
    for row, wish in enumerate(wishes):
        for query in range(2):
            expected = plain_kept(logits[row, query].tolist(), wish)
            assert set(mask[row, query].nonzero().flatten().tolist()) == expected


@settings(max_examples=60)
@given(wishes=st.lists(params, min_size=1, max_size=5), seed=st.integers(0, 10**6))
def test_the_draw_is_the_best_kept_code_after_noise(wishes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(wishes), 2, VOCAB, generator=generator)
    noise = gumbel(torch.arange(len(wishes)), torch.arange(2).expand(len(wishes), 2), VOCAB)
    drawn = sample(logits, stack(wishes), noise)
    for row, wish in enumerate(wishes):
        for query in range(2):
            left = plain_kept(logits[row, query].tolist(), wish)
            scores = {c: float(logits[row, query, c] + wish.temperature * noise[row, query, c]) for c in left}
            assert scores[int(drawn[row, query])] == max(scores.values())


def test_a_row_is_drawn_alike_beside_rows_that_truncate():
    logits = torch.randn(2, 3, VOCAB, generator=torch.Generator().manual_seed(0))
    noise = gumbel(torch.tensor([1, 2]), torch.arange(3).expand(2, 3), VOCAB)
    plain, truncated = SamplingParams(), SamplingParams(top_k=1)
    alone = sample(logits[:1], stack([plain]), noise[:1])
    beside = sample(logits, stack([plain, truncated]), noise)
    assert torch.equal(beside[:1], alone)
    assert torch.equal(beside[1], logits[1].argmax(dim=-1))


@pytest.mark.parametrize("extra", [{}, {"top_k": 3}, {"top_p": 0.5}])
def test_temperature_zero_takes_the_likeliest(extra):
    logits = torch.randn(1, 50, VOCAB, generator=torch.Generator().manual_seed(1))
    noise = gumbel(torch.tensor([3]), torch.arange(50)[None], VOCAB)
    rows = stack([SamplingParams(temperature=0.0, **extra)])
    assert torch.equal(sample(logits, rows, noise), logits.argmax(dim=-1))


@pytest.mark.parametrize(
    "wish", [SamplingParams(), SamplingParams(temperature=0.5), SamplingParams(top_k=3), SamplingParams(top_p=0.8)]
)
def test_draws_follow_the_distribution(wish):
    """Chi-squared over 20,000 seeds, against the truncated and tempered softmax."""
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0])
    num_draws = 20_000
    keys = torch.tensor([noise_key(seed, 0) for seed in range(num_draws)])
    noise = gumbel(keys, torch.full((num_draws, 1), 5), 5)
    drawn = sample(logits.expand(num_draws, 1, 5), SamplingRows.stack([wish] * num_draws, 5, CPU), noise)
    left = torch.tensor([code in plain_kept(logits.tolist(), wish) for code in range(5)])
    expected = (logits / wish.temperature).masked_fill(~left, -math.inf).softmax(0) * num_draws
    counts = drawn.flatten().bincount(minlength=5)
    assert counts[~left].sum() == 0
    chi_squared = ((counts - expected)[left] ** 2 / expected[left]).sum().item()
    assert chi_squared < 18.5  # 99.9 % quantile at 4 degrees of freedom


def test_guidance_extrapolates_from_the_unconditional_row():
    conditional, unconditional = torch.randn(2, 3, 2, 4, generator=torch.Generator().manual_seed(2)).unbind(0)
    guided = guide(conditional, unconditional, torch.tensor([0.0, 1.0, 3.0]))
    assert torch.equal(guided[0], unconditional[0])
    assert torch.allclose(guided[1], conditional[1])
    assert torch.allclose(guided[2], 3 * conditional[2] - 2 * unconditional[2], atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", 1e9),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("guidance", -1.0),
        ("guidance", math.inf),
        ("guidance_interval", (0.5, 0.5)),
        ("guidance_interval", (-0.1, 0.5)),
        ("guidance_interval", (0.5, 1.1)),
        ("guidance_interval", (math.nan, 1.0)),
        ("guidance_schedule", "square"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(SamplingError) as error:
        SamplingParams(**{field: value})
    assert error.value.field == field


def test_the_scale_of_guidance_grows_by_its_schedule_inside_its_interval_alone():
    shares = (0.0, 0.25, 0.5, 0.75)
    scales = {
        schedule: [SamplingParams(guidance=5.0, guidance_schedule=schedule).scale_at(share) for share in shares]
        for schedule in ("constant", "linear", "cosine")
    }
    assert scales["constant"] == [5, 5, 5, 5]
    assert scales["linear"] == [1, 2, 3, 4]
    assert scales["cosine"] == pytest.approx([1, 3 - math.sqrt(2), 3, 3 + math.sqrt(2)])
    middle = SamplingParams(guidance=5.0, guidance_interval=(0.25, 0.75))
    assert [middle.scale_at(share) for share in shares] == [1, 5, 5, 1]
    assert SamplingParams(guidance_schedule="linear").scale_at(0.5) == 1
