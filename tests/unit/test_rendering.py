"""Two renderings of one expression are one text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.rendering import settled

# As PostgreSQL first writes it, and as it writes it after reading that.
PAIRS = {
    "IN on a varchar": (
        "CHECK (((a)::text = ANY ((ARRAY['p'::varchar, 'q'::varchar])::text[])))",
        "CHECK (((a)::text = ANY (ARRAY[('p'::varchar)::text, ('q'::varchar)::text])))",
    ),
    "brackets, commas and quotes inside the elements": (
        "(a = ANY ((ARRAY['],''('::character varying, f(b[1], 2)])::text[]))",
        "(a = ANY (ARRAY[('],''('::character varying)::text, (f(b[1], 2))::text]))",
    ),
    "a length in the type": (
        "(a = ANY ((ARRAY['x'::bpchar])::character(3)[]))",
        "(a = ANY (ARRAY[('x'::bpchar)::character(3)]))",
    ),
    "BETWEEN and more": (
        "CHECK ((((d >= 1) AND (d <= 5)) AND (d <> 3)))",
        "CHECK (((d >= 1) AND (d <= 5) AND (d <> 3)))",
    ),
    "rows compared, three columns and a fourth": (
        "WHEN (((((a <> b) OR (c <> d)) OR (e <> f)) OR (g <> h)))",
        "WHEN (((a <> b) OR (c <> d) OR (e <> f) OR (g <> h)))",
    ),
}
SETTLED = [
    "((a > 0) OR ((b = 'c') OR (b = 'd')))",
    "(((a = 1) AND (b = 2)) OR (c = 3))",
    "sum(x) OVER (ORDER BY y ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
    "(a = ANY (ARRAY['x'::text, 'y'::text]))",
    "'((a OR b)) OR c'::text",
]


@pytest.mark.parametrize("name", PAIRS)
def test_the_first_rendering_becomes_the_second(name):
    first, second = PAIRS[name]
    assert settled(first) == second


@pytest.mark.parametrize("text", [*SETTLED, *(second for _, second in PAIRS.values())])
def test_a_settled_rendering_stays(text):
    assert settled(text) == text


atoms = st.sampled_from(["(a > 0)", "(b = 'x) OR (y'::text)", "(c IS NULL)", "f((d), e)"])


def joined(parts):
    return st.tuples(
        st.sampled_from([" OR ", " AND "]), st.lists(parts, min_size=2, max_size=3)
    ).map(lambda drawn: f"({drawn[0].join(drawn[1])})")


@given(st.recursive(atoms, joined, max_leaves=12))
def test_settling_once_is_settling_for_good(text):
    once = settled(text)
    assert settled(once) == once
    for word in (" OR ", " AND ", "(a > 0)", "f((d), e)"):
        assert once.count(word) == text.count(word)
