"""The catalogue as plain data: fingerprints, diffs and what is read from them."""

from __future__ import annotations

import json

import postgast
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.catalogue import Catalogue, Change, SchemaDiff, diff, problems
from airlock.introspection import QUERIES, for_version
from airlock.postgres import query

# What PostgreSQL can hold: any text without NUL and lone surrogates.
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)
values = st.one_of(texts, st.just(True), st.integers(2, 10**6), st.lists(texts, max_size=3))
attributes = st.dictionaries(st.sampled_from(("type", "default", "comment")), values)
keys = st.one_of(st.sampled_from(("table public.a", "column public.a.b", "index public.i")), texts)
catalogues = st.builds(Catalogue, objects=st.dictionaries(keys, attributes, max_size=6))


@given(catalogues)
def test_a_catalogue_does_not_differ_from_itself(catalogue: Catalogue) -> None:
    found = diff(catalogue, catalogue)
    assert found.is_empty
    assert found.render() == ""


@given(catalogues, catalogues)
def test_a_diff_backwards_is_the_diff_mirrored(one: Catalogue, other: Catalogue) -> None:
    there, back = diff(one, other), diff(other, one)
    assert (there.added, there.removed) == (back.removed, back.added)
    assert there.notes == back.notes
    assert [(c.key, c.attribute, c.before, c.after) for c in there.changed] == [
        (c.key, c.attribute, c.after, c.before) for c in back.changed
    ]


@given(catalogues, catalogues)
def test_two_catalogues_share_a_fingerprint_exactly_when_nothing_differs(
    one: Catalogue, other: Catalogue
) -> None:
    assert (one.fingerprint == other.fingerprint) == diff(one, other).is_empty


@given(catalogues)
def test_json_brings_a_catalogue_back_unchanged(catalogue: Catalogue) -> None:
    again = Catalogue.from_json(catalogue.to_json())
    assert again == catalogue
    assert again.to_json() == catalogue.to_json()


@given(catalogues)
def test_the_fingerprint_does_not_depend_on_the_order_of_reading(catalogue: Catalogue) -> None:
    backwards = {
        key: dict(reversed(found.items())) for key, found in reversed(catalogue.objects.items())
    }
    assert Catalogue(objects=backwards).fingerprint == catalogue.fingerprint


@given(catalogues, catalogues)
def test_plain_data_brings_a_diff_back_unchanged(one: Catalogue, other: Catalogue) -> None:
    found = diff(one, other)
    assert SchemaDiff.from_dict(json.loads(json.dumps(found.to_dict()))) == found


DEAL = {"schema": "public", "name": "deals", "owner": "app"}
STATUS = {"schema": "public", "table": "deals", "name": "status", "type": "text"}
ODD = {"schema": "public", "name": 'Odd."x', "owner": "app"}
SAMPLE = Catalogue(
    objects={
        "table public.deals": DEAL,
        "column public.deals.status": {**STATUS, "default": "'a'::text"},
        "column public.deals.id": {**STATUS, "name": "id", "type": "bigint"},
        'table public."Odd.""x"': ODD,
        'column public."Odd.""x".id': {**STATUS, "table": 'Odd."x', "name": "id"},
        "table public.parts": {"schema": "public", "name": "parts", "partitioned": True},
        "materialized view public.full": {"schema": "public", "name": "full"},
        "materialized view public.bare": {"schema": "public", "name": "bare", "populated": False},
        "view public.v": {"schema": "public", "name": "v"},
    }
)


def test_tables_are_what_can_be_read_and_holds_rows() -> None:
    assert SAMPLE.tables == (
        ("public", 'Odd."x'),
        ("public", "deals"),
        ("public", "full"),
        ("public", "parts"),
    )
    assert ("public", "parts") not in SAMPLE.stores
    assert len(SAMPLE.stores) == len(SAMPLE.tables) - 1


def test_columns_are_told_by_name_even_if_the_name_is_odd() -> None:
    assert SAMPLE.columns("public", "deals") == ("id", "status")
    assert SAMPLE.columns("public", 'Odd."x') == ("id",)


def test_ignored_attributes_do_not_count() -> None:
    other = Catalogue(objects={"table public.deals": {**DEAL, "owner": "someone"}})
    mine = Catalogue(objects={"table public.deals": DEAL})
    assert not diff(mine, other).is_empty
    assert diff(mine.ignoring("owner"), other.ignoring("owner")).is_empty


def test_a_diff_reads_as_lines_that_name_what_differs() -> None:
    objects = {**SAMPLE.objects, "column public.deals.x": {**STATUS, "name": "x"}}
    objects["column public.deals.status"] = {**STATUS, "default": "'b'::text", "not_null": True}
    del objects["view public.v"]
    assert diff(SAMPLE, Catalogue(objects=objects)).render().splitlines() == [
        "- view public.v",
        "+ column public.deals.x  text",
        "~ column public.deals.status default: 'a'::text → 'b'::text",
        "~ column public.deals.status not_null: (none) → true",
    ]


def test_a_long_text_is_shown_from_the_line_where_it_parts() -> None:
    change = Change(
        key="function public.f()",
        attribute="definition",
        before="BEGIN\n  RETURN 1;\nEND",
        after="BEGIN\n  RETURN 2;\nEND",
    )
    assert change.render() == "function public.f() definition (line 2): RETURN 1; → RETURN 2;"


def test_a_text_that_only_grew_is_shown_with_its_end() -> None:
    change = Change(key="view public.v", attribute="definition", before="a\nb", after="a\nb\nc")
    assert change.render() == "view public.v definition (line 3): (end) → c"


def test_a_long_diff_is_cut_and_says_how_much_is_missing() -> None:
    many = Catalogue(objects={f"table public.t{n:03}": {} for n in range(50)})
    lines = diff(Catalogue(objects={}), many).render(limit=40).splitlines()
    assert len(lines) == 41
    assert lines[-1] == "… and 10 more"


@pytest.mark.parametrize(
    ("key", "attributes", "sentence"),
    [
        ("index public.x", {"valid": False, "ready": False}, "index public.x is invalid"),
        ("index public.x", {"ready": False}, "index public.x is not ready"),
        ("constraint public.t.c", {"validated": False}, "constraint public.t.c is not validated"),
        ("constraint public.t.c", {"disabled": True}, "constraint public.t.c is switched off"),
        ("column public.t.c", {"not_null_validated": False}, "column public.t.c is NOT NULL but"),
        ("table public.p", {"detach_pending": True}, "table public.p is half detached"),
    ],
)
def test_what_is_left_unfinished_is_said_in_a_sentence(
    key: str, attributes: dict[str, bool], sentence: str
) -> None:
    (said,) = problems(Catalogue(objects={key: attributes}))
    assert said.startswith(sentence)


def test_a_constraint_that_is_not_enforced_is_no_problem() -> None:
    off = {"validated": False, "enforced": False}
    assert problems(Catalogue(objects={"constraint public.t.c": off})) == ()
    assert problems(SAMPLE) == ()


def test_lines_for_a_later_server_are_left_out() -> None:
    sql = "SELECT a,\n       b, -- 14\n       c -- 18 months\n  FROM d -- 18"
    assert for_version(sql, 13) == "SELECT a,\n       c -- 18 months"
    assert for_version(sql, 14) == "SELECT a,\n       b, -- 14\n       c -- 18 months"
    assert for_version(sql, 18) == sql


@pytest.mark.parametrize("name", [*QUERIES, "guard"])
@pytest.mark.parametrize("major", range(13, 19))
def test_the_queries_are_sql_for_every_version(name: str, major: int) -> None:
    postgast.parse(for_version(query(name), major))
