import pytest

from server.worker.previews import ROUND_SECONDS, SHARE, PreviewBudget


@pytest.mark.parametrize(("cost", "most"), [(0.001, 8), (0.2, 5), (30.0, 1)])
def test_dear_pictures_are_drawn_one_by_one_and_cheap_ones_together(cost: float, most: int) -> None:
    budget = PreviewBudget(0.125, 8)
    assert budget.most("a") == 1, "nobody knows yet what one costs"
    budget.spend("a", cost, 1)
    assert budget.most("a") == most
    assert budget.most("b") == 1
    assert most == 1 or most * cost <= ROUND_SECONDS


def test_previews_of_all_models_together_keep_their_share_of_the_time() -> None:
    budget = PreviewBudget(0.125, 8)
    worked = waited = 0.0
    for seconds in (0.5, 3.0, 0.001, 20.0):
        for model in ("a", "b"):
            budget.spend(model, seconds, 1)
            worked += seconds
        waited += budget.end_round()
    assert worked <= SHARE * (worked + waited) * 1.0001
    assert budget.end_round() == 0.125, "a round without work costs no pause"


def test_costs_are_those_of_the_latest_rounds() -> None:
    budget = PreviewBudget(0.125, 8)
    budget.spend("a", 10.0, 1)
    for _ in range(30):
        budget.spend("a", 0.1, 1)
    assert budget.most("a") == 8
