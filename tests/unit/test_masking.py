"""Rules, what they fit, and the draft that proposes them."""

from __future__ import annotations

import tomllib
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock import masking, settings
from airlock.errors import Refused
from airlock.masking import Column, ForeignKey, Rule, Table


def target(mask: object) -> SimpleNamespace:
    return SimpleNamespace(name="staging", mask=mask)


def column(name: str, base: str = "text", **more: object) -> Column:
    return Column(name=name, type=base, base=base, **more)  # type: ignore[arg-type]


def table(name: str, *columns: Column, schema: str = "public", **more: object) -> Table:
    return Table(schema=schema, name=name, columns=columns, **more)  # type: ignore[arg-type]


def key(columns: str, references: str, referenced: str) -> ForeignKey:
    return ForeignKey(
        name="fk",
        columns=tuple(columns.split()),
        references=("public", references),
        referenced=tuple(referenced.split()),
    )


def classify(mask: object, *tables: Table) -> tuple[masking.TableMask, ...]:
    return masking.classify(masking.read_rules(target(mask)), tables)


# ---------------------------------------------------------------- rules


def test_a_rule_is_a_name_or_a_table_with_arguments():
    mask = {
        "log": "truncate",
        "t": {
            "a": "keep",
            "b": {"rule": "hash", "domain": "d"},
            "c": {"rule": "noise", "percent": 25},
            "d": "noise",
            "e": {"rule": "keep", "checked": True},
        },
    }
    assert masking.read_rules(target(mask)).tables == {
        "log": Rule(name="truncate"),
        "t": {
            "a": Rule(name="keep"),
            "b": Rule(name="hash", domain="d"),
            "c": Rule(name="noise", percent=25),
            "d": Rule(name="noise", percent=10),
            "e": Rule(name="keep", checked=True),
        },
    }


MALFORMED = {
    "another word for a whole table": ({"t": "keep"}, r"\] t is 'keep'.*only \"truncate\""),
    "no such rule": ({"t": {"a": "scramble"}}, r"t\.a: 'scramble' is not a rule.*keep, null"),
    "truncate for a column": ({"t": {"a": "truncate"}}, "truncate is for whole tables"),
    "no name": ({"t": {"a": {"domain": "d"}}}, "None is not a rule"),
    "an argument of another rule": (
        {"t": {"a": {"rule": "email", "percent": 5}}},
        "email takes domain, not percent",
    ),
    "arguments where there are none": (
        {"t": {"a": {"rule": "null", "x": 1}}},
        "null takes no arguments, not x",
    ),
    "no domain's name": ({"t": {"a": {"rule": "hash", "domain": ""}}}, "domain should be a name"),
    "nothing to add": ({"t": {"a": {"rule": "noise", "percent": 0}}}, "from 1 to below 100"),
    "too much to add": ({"t": {"a": {"rule": "noise", "percent": 100}}}, "from 1 to below 100"),
    "a switch for a number": ({"t": {"a": {"rule": "noise", "percent": True}}}, "from 1 to"),
    "a number for a switch": ({"t": {"a": {"rule": "keep", "checked": 1}}}, "true or false"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_rule_is_refused_by_its_key(case: str):
    mask, message = MALFORMED[case]
    with pytest.raises(Refused, match=message):
        masking.read_rules(target(mask))


def test_the_settings_hand_the_rules_over_as_they_are(tmp_path):
    path = tmp_path / "airlock.toml"
    path.write_text(
        '[targets.staging]\ndatabase_url_env = "X"\n[targets.staging.mask]\nlog = "truncate"\n'
        '[targets.staging.mask."sales.deals"]\na = { rule = "keep", checked = true }\n'
        'rule = { rule = "noise", percent = 2.5 }\n',
        encoding="utf-8",
    )
    rules = masking.read_rules(settings.load(path).target("staging"))
    assert rules.tables == {
        "log": Rule(name="truncate"),
        "sales.deals": {
            "a": Rule(name="keep", checked=True),
            "rule": Rule(name="noise", percent=2.5),
        },
    }


# ---------------------------------------------------------------- classification


def test_every_unclassified_column_is_named():
    deals = table("deals", column("a"), column("b"), column("c", generated=True))
    other = table("deals", column("x"), schema="sales")
    with pytest.raises(Refused) as failed:
        classify({"deals": {"a": "keep"}}, deals, other)
    said = str(failed.value)
    assert "2 columns have no rule: deals.b, sales.deals.x." in said
    assert "airlock mask draft staging" in said


def test_rules_for_what_is_not_there_are_named_and_passed_over():
    mask = {"gone": "truncate", "lost": {"x": "null"}, "t": {"b": "keep", "a": "keep"}}
    found = table("t", column("a"))
    assert masking.absent(masking.read_rules(target(mask)), [found]) == ["gone", "lost", "t.b"]
    (mask,) = classify(mask, found)
    assert [each.column.name for each in mask.columns] == ["a"]


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(Refused) as failed:
        classify(
            {"t": {"n": "email", "g": "keep"}},
            table("t", column("a"), column("n", "int4"), column("g", generated=True)),
        )
    said = str(failed.value)
    assert "t.n: email is not for int4. Choose one of keep, null, noise" in said
    assert "t.g: it is computed from other columns" in said
    assert "1 columns have no rule: t.a" in said


MISFITS = {
    "null on NOT NULL": ("null", column("a", not_null=True), "it is NOT NULL"),
    "a hash of a truth value": ("hash", column("a", "bool"), "Choose one of keep, null"),
    "a hash of a label": ("hash", column("a", ""), "hash is not for"),
    "a hash of a small number": ("hash", column("a", "int4"), "keep, null, noise"),
    "an e-mail in a number": ("email", column("a", "int8", not_null=True), "keep, hash, noise"),
    "noise on a text": ("noise", column("a"), "keep, null, hash, email, name, text"),
    "a narrow e-mail": ("email", column("a", "varchar", limit=27), "needs 28 characters"),
    "a narrow hash": ("hash", column("a", "varchar", limit=5), "needs 6 characters"),
    "a narrow name": ("name", column("a", "varchar", limit=11), "needs 12 characters"),
    "a narrow text": ("text", column("a", "varchar", limit=11), "needs 12 characters"),
    "a partition's key": ("hash", column("a", distributes=True), "which partition"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_rule_that_does_not_fit_its_column_is_refused(case: str):
    rule, found, message = MISFITS[case]
    with pytest.raises(Refused, match=rf"\nt\.a: .*{message}"):
        classify({"t": {"a": rule}}, table("t", found))


def test_tables_elsewhere_are_named_with_their_schema_and_odd_names_in_quotes():
    tables = (
        table("b", column("x"), schema="a"),
        table("a.b", column("x")),
        table('we"ird', column("x"), schema="odd.one"),
    )
    assert [each.label for each in tables] == ["a.b", '"a.b"', '"odd.one"."we""ird"']
    masks = classify({each.label: {"x": "hash"} for each in tables}, *tables)
    assert len({each.columns[0].domain for each in masks}) == 3


def test_the_rules_of_a_partitioned_table_hold_for_its_partitions():
    root = table("t", column("a"), column("at", distributes=True), partitioned=True)
    middle = table(
        "t1", column("a", distributes=True), column("at"), root=root.place, partitioned=True
    )
    leaf = table("t2", column("at"), column("a"), root=root.place)
    (mask,) = classify({"t": {"a": "keep", "at": "keep"}}, root, middle, leaf)
    assert mask.stores == (leaf,)
    with pytest.raises(Refused, match="t2 is a partition of t: put the rules there"):
        classify({"t": {"a": "keep", "at": "keep"}, "t2": {"a": "keep"}}, root, middle, leaf)
    with pytest.raises(Refused, match=r"t\.a: it says which partition"):
        classify({"t": {"a": "hash", "at": "keep"}}, root, middle, leaf)


COMPANIES = table("companies", column("id", "int8"), column("name", "varchar", limit=40))
PEOPLE = table(
    "people",
    column("company", "varchar", limit=20),
    column("company_id", "int8"),
    foreign_keys=(key("company", "companies", "name"), key("company_id", "companies", "id")),
)
JOINED = {"rule": "hash", "domain": "company"}


def joined(**rules: object) -> tuple[masking.TableMask, ...]:
    mask = {"id": "keep", "name": JOINED, "company": JOINED, "company_id": "keep"} | rules
    return classify(
        {
            "companies": {name: mask[name] for name in ("id", "name")},
            "people": {name: mask[name] for name in ("company", "company_id")},
        },
        COMPANIES,
        PEOPLE,
    )


@pytest.mark.parametrize(
    "rules",
    [
        {"company": "hash"},
        {"company": "keep"},
        {"name": "keep"},
        {"name": "text", "company": "text"},
        {"id": "hash"},
        {"company_id": {"rule": "noise"}, "id": {"rule": "noise"}},
    ],
)
def test_a_foreign_key_that_would_break_is_refused_naming_both_columns(rules: dict[str, object]):
    with pytest.raises(Refused, match=r"people\.(\w+) \(.*\) refers to companies\.(\w+) \("):
        joined(**rules)


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"company": "null"},
        {"name": "keep", "company": "keep"},
        {"id": {"rule": "hash", "domain": "i"}, "company_id": {"rule": "hash", "domain": "i"}},
        {"name": {"rule": "name", "domain": "n"}, "company": {"rule": "name", "domain": "n"}},
    ],
)
def test_a_foreign_key_survives_one_rule_in_one_domain_or_null(rules: dict[str, object]):
    joined(**rules)


def test_a_domain_is_as_wide_as_its_narrowest_column():
    companies, people = joined()
    assert companies.columns[1].limit == people.columns[0].limit == 20
    one, other = (each.expression("x", "k") for each in (companies.columns[1], people.columns[0]))
    assert one == other
    assert "short" in one


def test_a_domain_with_a_citext_does_not_tell_upper_from_lower_case():
    mask = {"rule": "email", "domain": "d"}
    tables = table("a", column("x", "citext")), table("b", column("x"), column("y"))
    masks = classify({"a": {"x": mask}, "b": {"x": mask, "y": "email"}}, *tables)
    one, other, own = (each.expression("v", "k") for mask in masks for each in mask.columns)
    assert one == other
    assert "lower(v" in one
    assert "lower(v" not in own


def test_noise_stays_below_what_fits_also_where_all_digits_are_behind_the_point():
    for precision, scale, below in ((2, 4, "0.01"), (9, 2, "10000000"), (3, -2, "100000")):
        found = column("n", "numeric", precision=precision, scale=scale)
        (mask,) = classify({"t": {"n": "noise"}}, table("t", found))
        assert mask.columns[0].expression("v", "k").endswith(f", {scale}, {below})")


def test_a_domain_has_one_rule_and_one_type():
    for other in ({"rule": "email", "domain": "d"}, {"rule": "hash", "domain": "d"}):
        with pytest.raises(
            Refused, match=r'a\.x \(.*\) and b\.x \(.*\) are both in the domain "d"'
        ):
            classify(
                {"a": {"x": {"rule": "hash", "domain": "d"}}, "b": {"x": other}},
                table("a", column("x", "uuid" if other["rule"] == "hash" else "text")),
                table("b", column("x")),
            )


def test_a_key_of_a_partition_counts_as_its_roots():
    root = table("t", column("c"), partitioned=True)
    leaf = table("t1", column("c"), root=root.place, foreign_keys=(key("c", "companies", "name"),))
    with pytest.raises(Refused, match=r"t\.c \(keep\) refers to companies\.name \(hash"):
        classify(
            {"t": {"c": "keep"}, "companies": {"id": "keep", "name": "hash"}}, root, leaf, COMPANIES
        )


def test_a_truncated_table_that_others_refer_to_is_refused():
    with pytest.raises(Refused, match=r"people \(company\) refers to companies, which is trunc"):
        classify(
            {"companies": "truncate", "people": {"company": "keep", "company_id": "null"}},
            COMPANIES,
            PEOPLE,
        )
    classify(
        {"companies": "truncate", "people": {"company": "null", "company_id": "null"}},
        COMPANIES,
        PEOPLE,
    )
    classify({"companies": "truncate", "people": "truncate"}, COMPANIES, PEOPLE)


# ---------------------------------------------------------------- draft

NAMES = st.one_of(
    st.sampled_from(
        ["id", "email", "phone", "name", "password", "note", "salary", "zip", "iban", "birth_date"]
    ),
    st.text(
        st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=8
    ),
)
BASES = st.sampled_from(["", "bool", "date", "inet", *masking._KINDS])


@st.composite
def columns(draw: st.DrawFn) -> Column:
    base = draw(BASES)
    return column(
        draw(NAMES),
        base,
        limit=draw(st.none() | st.integers(1, 60)) if base in ("varchar", "bpchar") else None,
        not_null=draw(st.booleans()),
        generated=draw(st.integers(0, 5)) == 0,
        distributes=draw(st.integers(0, 9)) == 0,
    )


@st.composite
def schemas(draw: st.DrawFn) -> tuple[Table, ...]:
    """Tables with any names and types, partitions, and foreign keys between whatever columns."""
    places = draw(
        st.lists(st.tuples(st.sampled_from(["public", "a.b", "x"]), NAMES), unique=True, max_size=6)
    )
    tables: list[Table] = []
    for schema, name in places:
        found = draw(st.lists(columns(), unique_by=lambda each: each.name, max_size=5))
        root = None
        if tables and draw(st.integers(0, 4)) == 0:
            first = next(each for each in tables if each.root is None)
            found, root = list(first.columns), first.place
        keys: list[ForeignKey] = []
        for other in [*tables, table(name, *found, schema=schema)]:
            if found and other.columns and draw(st.booleans()):
                mine = draw(st.sampled_from(found)).name
                theirs = draw(st.sampled_from(other.columns)).name
                reference = ForeignKey(
                    name="fk", columns=(mine,), references=other.place, referenced=(theirs,)
                )
                keys.append(reference)
        tables.append(table(name, *found, schema=schema, root=root, foreign_keys=tuple(keys)))
    return tuple(tables)


@given(schemas())
def test_what_the_draft_proposes_classifies_any_schema(tables: tuple[Table, ...]):
    text = masking.draft(tables, target="staging")
    mask = tomllib.loads(text)["targets"]["staging"]["mask"]
    rules = masking.read_rules(target(mask))
    masks = masking.classify(rules, tables)
    assert {each.table.place for each in masks} == {t.place for t in tables if t.root is None}
    # And it stands as it is when it is drafted again.
    again = masking.draft(tables, target="staging", classified=rules)
    assert tomllib.loads(again) == tomllib.loads(text)


PROPOSED = {
    "email": '"email"',
    "contact_email": '"email"',
    "phone": '"hash"',
    "last_name": '"name"',
    "IBAN": '"hash"',
    "street": '"text"',
    "api_key": '"null"',
    "comments": '"text"',
    # Of which nobody knows what stands in them.
    "status": '"text"',
    "filename_pattern": '"text"',
    "text_color": '"text"',
    "token_count": '"text"',
    "emailSentAt": '"text"',
} | {
    name: f'"{rule}"'
    for rule, names in {
        "hash": "phone_number phoneNumber mobile_number tel_no phone2 ssn_last4 card_last4"
        " iban_number national_id license_plate SSNLast4",
        "null": "password_hash passwordHash password_digest token_hash",
        "text": "address_line1 ip_addr lastIP",
        "email": "email_normalized email2 EMail userEmail",
        "name": "firstName",
    }.items()
    for name in names.split()
}


def test_the_draft_goes_by_the_names_and_says_why():
    text = masking.draft([table("t", *map(column, PROPOSED), column("salary", "numeric"))])
    found = tomllib.loads(text)["targets"]["staging"]["mask"]["t"]
    assert found.pop("salary") == {"rule": "noise", "percent": 10}
    assert {name: f'"{rule}"' for name, rule in found.items()} == PROPOSED
    assert 'api_key = "null"  # a secret' in text


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (column("q7"), 'q7 = "text"  # text of which nothing is known'),
        (column("q7", "jsonb"), 'q7 = "text"  # a document of which nothing is known'),
        (column("q7", "varchar", limit=200), 'q7 = "text"  # text of which nothing is known'),
        (
            column("q7", "varchar", limit=3),
            'q7 = "keep"  # text of which nothing is known, but no rule fits varchar: look at it',
        ),
        (column("q7", "int4"), 'q7 = "keep"\n'),
        (column("q7", "bool"), 'q7 = "keep"\n'),
    ],
)
def test_text_of_which_nothing_is_known_is_masked(found: Column, line: str):
    assert line in masking.draft([table("t", found)])


def test_keys_of_which_nothing_is_known_are_kept_together():
    countries = table("countries", column("code"))
    people = table("people", column("land"), foreign_keys=(key("land", "countries", "code"),))
    text = masking.draft([people, countries])
    assert 'land = "keep"  # joined with countries.code: look at it' in text


def test_what_has_no_rule_that_fits_is_kept_and_said():
    text = masking.draft([table("t", column("birth_date", "date", not_null=True))])
    assert 'birth_date = "keep"  # a date of birth, but no rule fits date: look at it' in text


def test_the_draft_gives_joined_columns_one_domain():
    companies = table("companies", column("email"))
    people = table("people", column("boss"), foreign_keys=(key("boss", "companies", "email"),))
    text = masking.draft([people, companies])
    line = '{ rule = "email", domain = "companies.email" }  # joined with companies.email'
    assert f"email = {line}" in text
    assert f"boss = {line}" in text


def test_what_stands_already_is_repeated_and_marked():
    rules = masking.read_rules(target({"log": "truncate", "t": {"email": {"rule": "hash"}}}))
    text = masking.draft(
        [table("log", column("x")), table("t", column("email"), column("phone"))], classified=rules
    )
    assert 'log = "truncate"  # stands already' in text
    assert 'email = "hash"  # stands already' in text
    assert 'phone = "hash"  # a phone number' in text


# ---------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("text", "real"),
    [
        ("DE89370400440532013000", True),
        ("GB29 NWBK 6016 1331 9268 19", True),
        ("BE68 5390 0754 7034 MORE", True),
        ("DE88370400440532013000", False),
        ("DE8937040044053201300", False),
        ("ZZ89370400440532013000", False),
        ("", False),
    ],
)
def test_an_iban_has_its_countrys_length_and_right_check_digits(text: str, real: bool):
    assert masking.is_iban(text) is real


def test_an_iban_is_found_behind_what_begins_like_one():
    assert masking.holds_iban("RE24 0815 DE89 3704 0044 0532 0130 00")
    assert not masking.holds_iban("RE24 0815 DE88 3704 0044 0532 0130 00")


def test_a_shape_says_nothing_of_the_value():
    assert masking.shape(" Zoë.B+7@corp.example ") == "xxx.x+9@xxxx.xxxxxxx"
    assert masking.shape("x" * 50) == "x" * 39 + "…"
