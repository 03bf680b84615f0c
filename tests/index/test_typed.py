"""Conditions whose constants are of the types of their columns."""

import datetime

import pyarrow as pa
import pytest

from pipeline.errors import SpecError
from pipeline.index.exact import matching
from pipeline.index.filters import Comparison, OneOf, parse_filter
from pipeline.index.layout import NUMBER, TEXT, TIME, TRUTH, WHOLE
from pipeline.index.typed import typed

TYPES = {"title": TEXT, "year": WHOLE, "weight": NUMBER, "draft": TRUTH, "seen": TIME}
UTC = datetime.UTC


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        ('title == "2000"', "2000"),
        ("year == 2000.0", 2000),
        ("year == 9007199254740993", 2**53 + 1),
        ("weight > 1", 1.0),
        ("not draft", False),
        ("draft == true", True),
        ('seen < "2026-11-26"', datetime.datetime(2026, 11, 26, tzinfo=UTC)),
        ('seen < "2026-11-26T14:00+01:00"', datetime.datetime(2026, 11, 26, 13, tzinfo=UTC)),
    ],
)
def test_a_constant_becomes_what_its_column_holds(text: str, constant: object) -> None:
    found = typed(parse_filter(text), TYPES)
    assert isinstance(found, Comparison)
    assert found.value == constant
    assert type(found.value) is type(constant)


def test_constants_of_a_list_and_of_parts_are_typed_too() -> None:
    found = typed(parse_filter("weight in [1, 2]"), TYPES)
    assert found == OneOf(column="weight", values=(1.0, 2.0), is_negated=False)
    inner = typed(parse_filter("draft and (weight in [1] or year > 1.0)"), TYPES)
    assert inner == parse_filter("draft and (weight in [1.0] or year > 1)")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("embedding == 1", "there is no column 'embedding'; those are title, year"),
        ('year == "x"', "'year' is compared with a whole number of 64 bits, and 'x' is none"),
        ("year > 2000.5", "'year' is compared with a whole number of 64 bits, and 2000.5 is none"),
        ("year < 9223372036854775808", "'year' is compared with a whole number"),
        ("year == True", "'year' is compared with a whole number of 64 bits, and True is none"),
        ("title > 3", "'title' is compared with a text, such as \"en\", and 3 is none"),
        ("title == '\\ud800'", "'title' is compared with a text"),
        ("draft == 1", "'draft' is compared with True or False, and 1 is none"),
        ("draft > False", "'draft' is true or false, and neither is the greater"),
        ("weight == 1e999", "'weight' is compared with a number, and inf is none"),
        ("seen > 2024", "'seen' is compared with a time, such as .*, and 2024 is none"),
        ('seen > "soon"', "'seen' is compared with a time, such as .*, and 'soon' is none"),
        ('seen > "0001-01-01T00:00+14:00"', "'seen' is compared with a time"),
    ],
)
def test_a_column_is_compared_with_what_it_can_be(text: str, sentence: str) -> None:
    with pytest.raises(SpecError, match=f"^--filter: {sentence}"):
        typed(parse_filter(text), TYPES)


def test_whole_numbers_are_not_rounded() -> None:
    columns = {"year": pa.chunked_array([[2**53, 2**53 + 1]])}
    condition = typed(parse_filter("year == 9007199254740993"), TYPES)
    assert matching(condition, columns).tolist() == [False, True]
