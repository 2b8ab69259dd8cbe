"""Attributes of label rows, and how well they are read back."""

import pytest
import torch

from oar_core.errors import DataError
from oar_core.train.attributes import UNKNOWN, Attribute, AttributeVocabulary
from oar_lab.eval.agreement import agreement, relative

ROWS = [{"kind": kind, "colour": "red"} for kind in ("shirt", "shirt", "bag", "bag", "bag", "shoe", "hat")]


def test_classes_are_the_most_frequent_values_and_other() -> None:
    vocabulary = AttributeVocabulary.build([Attribute("kind", max_classes=2), Attribute("colour")], ROWS)
    assert vocabulary.classes == {"kind": ("bag", "shirt", "other"), "colour": ("red",)}
    assert vocabulary.sizes == (3, 1)


def test_a_value_without_a_class_is_other_or_unknown() -> None:
    vocabulary = AttributeVocabulary.build([Attribute("kind", max_classes=2), Attribute("colour")], ROWS)
    labels = vocabulary.encode([{"kind": "shirt", "colour": "red"}, {"kind": "tie", "colour": "blue"}])
    assert labels.tolist() == [[1, 0], [2, UNKNOWN]]


def test_rows_without_a_label_are_unknown_where_a_column_is_partial() -> None:
    rows = [{"hair": hair} for hair in ("bun", "", "", "bob", "bob", "fade")]
    whole = AttributeVocabulary.build([Attribute("hair")], rows)
    assert whole.classes == {"hair": ("", "bob", "bun", "fade")}
    partial = AttributeVocabulary.build([Attribute("hair", max_classes=2, is_partial=True)], rows)
    assert partial.classes == {"hair": ("bob", "bun", "other")}
    assert partial.encode(rows).flatten().tolist() == [1, UNKNOWN, UNKNOWN, 0, 0, 2]


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="'size'"):
        AttributeVocabulary.build([Attribute("size")], ROWS)


def test_agreement_leaves_out_what_is_unknown() -> None:
    read = torch.tensor([[0, 1], [1, 1], [2, 0]])
    wanted = torch.tensor([[0, UNKNOWN], [1, UNKNOWN], [0, UNKNOWN]])
    assert agreement(read, wanted, ("kind", "colour")) == pytest.approx({"kind": 2 / 3, "mean": 2 / 3})
    wanted[2, 1] = 0
    assert agreement(read, wanted, ("kind", "colour")) == pytest.approx({"kind": 2 / 3, "colour": 1, "mean": 5 / 6})


def test_agreement_is_compared_with_what_can_be_reached() -> None:
    assert relative({"kind": 0.45, "hue": 0.3}, {"kind": 0.9, "hue": 0.0}) == pytest.approx({"kind": 0.5})
