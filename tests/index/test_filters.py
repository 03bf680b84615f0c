"""Filters: what is typed means what Python would make of it, and null fulfils nothing."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SpecError
from pipeline.index.exact import matching
from pipeline.index.filters import columns_of, parse_filter

_ROWS = [
    {"year": year, "title": title, "draft": draft}
    for year in (1999, 2004, None)
    for title in ("a", "b", None)
    for draft in (True, False, None)
]
_COLUMNS = {
    "year": pa.chunked_array([pa.array([row["year"] for row in _ROWS], pa.int64())]),
    "title": pa.chunked_array([pa.array([row["title"] for row in _ROWS], pa.string())]),
    "draft": pa.chunked_array([pa.array([row["draft"] for row in _ROWS], pa.bool_())]),
}
_LEAVES = st.sampled_from(
    [
        "year >= 2000",
        "year != 1999",
        "2000 > year",
        "1990 < year <= 1999",
        "year in [1999, 2001]",
        "year not in (1999,)",
        'title == "a"',
        'title not in ["a"]',
        "draft",
        "draft == False",
    ]
)
_CONDITIONS = st.recursive(
    _LEAVES,
    lambda part: st.one_of(
        part.map(lambda text: f"not ({text})"),
        st.tuples(part, part).map(lambda both: f"({both[0]}) and ({both[1]})"),
        st.tuples(part, part).map(lambda both: f"({both[0]}) or ({both[1]})"),
    ),
    max_leaves=5,
)


def _by_sql(text: str, row: dict[str, Any]) -> bool | None:
    """Three-valued, by the book: the truth of a tree of Python's own."""
    import ast

    def truth(node: ast.expr) -> bool | None:
        if isinstance(node, ast.BoolOp):
            parts = [truth(value) for value in node.values]
            decisive = isinstance(node.op, ast.Or)
            if decisive in parts:
                return decisive
            return None if None in parts else not decisive
        if isinstance(node, ast.UnaryOp):
            inner = truth(node.operand)
            return None if inner is None else not inner
        names = [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
        if any(row[name] is None for name in names):
            return None
        return bool(eval(compile(ast.Expression(node), "", "eval"), {}, row))

    return truth(ast.parse(text, mode="eval").body)


@given(text=_CONDITIONS)
def test_a_filter_is_true_where_sql_says_true(text: str) -> None:
    condition = parse_filter(text)
    assert matching(condition, _COLUMNS).tolist() == [_by_sql(text, row) is True for row in _ROWS]
    assert set(columns_of(condition)) <= set(_COLUMNS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "year >",
        "year = 2000",
        "1 == 1",
        "f(year)",
        "year.real > 1",
        "__import__('os')",
        "year in []",
        "year in [1, 'a']",
        "year > other",
        "year is None",
        "year + 1 > 2",
        "lambda: year",
        'title == "a" if draft else draft',
        "(" * 5000,
    ],
)
def test_what_is_no_condition_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--filter: .{0,6000}$"):
        parse_filter(text)
