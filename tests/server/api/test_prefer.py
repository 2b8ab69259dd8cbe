import pytest

from server.api.prefer import preferred_wait


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        (["wait=5"], 5),
        (["Wait=5"], 5),
        (["WAIT = 5"], 5),
        (['wait="5"'], 5),
        (["respond-async, wait=5"], 5),
        (["respond-async", "wait=5"], 5),
        (["wait=5", "handling=lenient"], 5),
        (["wait=5, wait=9"], 5),
        (["wait=5; foo=bar"], 5),
        (['handling="a, wait=3", wait=5'], 5),
        (["wait=0"], 0),
        (["wait=99999999999"], 99999999999),
        (["wait"], None),
        (["wait="], None),
        (["wait=5.5"], None),
        (["wait=-5"], None),
        (['wait="5'], None),
        (["wait=٣"], None),
        (["await=5"], None),
        (["foo; wait=5"], None),
        (["wait=" + "9" * 5000], None),
        ([""], None),
    ],
)
def test_a_preference_is_read_as_rfc_7240_has_it(headers: list[str], seconds: int | None) -> None:
    assert preferred_wait(headers) == seconds
