"""Migration files: what is read from them, and what is refused, by file and line."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock import migration, syntax
from airlock.errors import Refused
from airlock.migration import Migration, MigrationFile

HEADER = (
    "-- Migration 011: Deal scores\n-- Purpose: Rank deals\n-- Author: A B\n-- Date: 2026-01-02\n"
)
FORWARD = "CREATE TABLE scores (id int);"
CONTRACT = "-- Phase: contract\n"
NOTES = "-- ROLLBACK NOTES\n-- DROP TABLE scores;\n"

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(text: str | bytes, name: str = "011_scores.sql") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def source(text: str) -> MigrationFile:
    path = Path("011_scores.sql")
    return MigrationFile(version=11, name="scores", path=path, text=text, checksum="c")


def with_notes(notes: str) -> Migration:
    return migration.parse(source(f"{HEADER}{FORWARD}\n-- ROLLBACK NOTES\n{notes}"))


def test_a_file_gives_its_header_its_sql_and_its_way_back(make: Make):
    path = make(
        f"{HEADER}\n-- ====\n-- FORWARD MIGRATION\n-- ====\n{FORWARD}\n\n"
        "-- ==============\n-- ROLLBACK NOTES\n-- ==============\n\n"
        "-- To rollback this migration, run:\n-- DROP TABLE scores;\n"
    )
    found = migration.read(path)
    assert (found.version, found.name, found.label) == (11, "scores", "011_scores")
    assert (found.title, found.purpose) == ("Deal scores", "Rank deals")
    assert (found.author, found.date) == ("A B", "2026-01-02")
    assert [each.text for each in syntax.parse(found.forward)] == [FORWARD[:-1]]
    assert found.reverse == "DROP TABLE scores;\n"


def test_statements_carry_the_lines_of_the_file(make: Make):
    found = migration.read(make(f"{HEADER}\n{FORWARD}\nCREATE INDEX ON\n  scores (id);\n{NOTES}"))
    assert [each.line for each in syntax.parse(found.forward)] == [6, 7]


def test_the_first_header_line_of_a_kind_counts_and_the_notes_have_none():
    found = migration.parse(
        source(f"{HEADER}-- Purpose: Another\n{FORWARD}\n{NOTES}-- Author: of the notes\n")
    )
    assert (found.purpose, found.author) == ("Rank deals", "A B")


@pytest.mark.parametrize(
    ("header", "phase"),
    [
        ("", "expand"),
        ("-- Phase: expand\n", "expand"),
        ("-- Phase: contract\n", "contract"),
        ("--phase:  Contract \n", "contract"),
        ("\n-- FORWARD MIGRATION\n-- Phase: contract\n", "contract"),
        ("-- The phase: contract, and later more\n", "expand"),
    ],
)
def test_a_header_line_names_the_phase_which_is_expand_otherwise(header, phase):
    text = f"{HEADER}{header}{FORWARD}\n{NOTES}-- Phase: contract\n"
    assert migration.parse(source(text)).phase == phase


# ---------------------------------------------------------------- the notes

DO = "DO $$\nBEGIN\n  DROP TABLE scores;\n  RAISE NOTICE 'done;';\nEND $$;"


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ("-- DROP TABLE scores;", ["DROP TABLE scores"]),
        ("--DROP TABLE scores;", ["DROP TABLE scores"]),
        ("   --   DROP TABLE scores;  ", ["DROP TABLE scores"]),
        ("-- drop table scores;", ["drop table scores"]),
        ("-- DROP TABLE scores; -- with its rows", ["DROP TABLE scores"]),
        ("-- DROP TABLE a; DROP TABLE b;", ["DROP TABLE a", "DROP TABLE b"]),
        ("-- ALTER TABLE a\n--   DROP COLUMN b;", ["ALTER TABLE a\n  DROP COLUMN b"]),
        ("-- ALTER TABLE a\n\n--   DROP COLUMN b;", ["ALTER TABLE a\n  DROP COLUMN b"]),
        ("/*\nDROP TABLE a;\n*/", ["DROP TABLE a"]),
        ("/* DROP TABLE a; */", ["DROP TABLE a"]),
        ("/*\n * First the table:\n * DROP TABLE a;\n */", ["DROP TABLE a"]),
        ("/*\nDROP TABLE a;\n*/\n-- DROP TABLE b;", ["DROP TABLE a", "DROP TABLE b"]),
        ("\n".join(f"-- {line}" for line in DO.splitlines()), [DO[:-1]]),
        (f"/*\n{DO}\n*/", [DO[:-1]]),
        ("-- Drop what was made:\n-- DROP TABLE a;\n-- That is all.", ["DROP TABLE a"]),
        ("-- Take care, the rows are lost\n-- DROP TABLE a;", ["DROP TABLE a"]),
        ("-- -- DROP TABLE old;\n-- DROP TABLE a;", ["DROP TABLE a"]),
        ("-- DROP TABLE a;\n-- -- DROP TABLE old;", ["DROP TABLE a"]),
    ],
)
def test_sql_in_the_notes_is_told_from_prose_by_the_grammar(notes, expected):
    found = [each.text for each in syntax.parse(with_notes(notes).reverse)]
    assert found == expected


IDENTIFIER = st.from_regex(r"[a-z]{1,8}", fullmatch=True).filter(
    lambda name: not name.startswith(("do", "or", "in"))
)
STATEMENT = st.one_of(
    IDENTIFIER.map(lambda a: f'DROP TABLE IF EXISTS "{a}" CASCADE;'),
    st.tuples(IDENTIFIER, IDENTIFIER).map(
        lambda names: f'ALTER TABLE "{names[0]}"\n  DROP COLUMN "{names[1]}";'
    ),
    IDENTIFIER.map(lambda a: f"UPDATE \"{a}\" SET note = '; -- no end'\nWHERE note = 'x;';"),
    IDENTIFIER.map(lambda a: f'DO $$\nBEGIN\n  DELETE FROM "{a}";\n  PERFORM 1;\nEND $$;'),
    IDENTIFIER.map(lambda a: f'DROP INDEX CONCURRENTLY "{a}";'),
)
PROSE = st.sampled_from(
    [
        "To rollback this migration, run:",
        "1. First the column; then the table",
        "==============",
        "It's slow: be patient.",
        "(rows written since are kept)",
        "",
        "note – the old code ignores it",
    ]
)


@given(st.lists(st.tuples(st.lists(PROSE, max_size=2), STATEMENT), min_size=1, max_size=5))
def test_statements_with_prose_between_them_come_back_as_exactly_these(parts):
    lines: list[str] = []
    for prose, statement in parts:
        lines += [*prose, *statement.split("\n")]
    found = with_notes("\n".join(f"-- {line}".rstrip() for line in lines))
    assert [f"{each.text};" for each in syntax.parse(found.reverse)] == [sql for _, sql in parts]


@given(
    st.text(max_size=80),
    st.text(alphabet="-/* ;\n\\abDROPTABLE$'\"", max_size=80),
)
def test_any_text_is_read_or_refused(forward, notes):
    for text in (forward, f"{FORWARD}\n-- ROLLBACK NOTES\n{notes}", f"{forward}\n{NOTES}"):
        with suppress(Refused):
            migration.parse(source(text))


# ---------------------------------------------------------------- the checksum


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: b"\xef\xbb\xbf" + raw,
        lambda raw: raw.replace(b"\n", b"\r\n"),
        lambda raw: raw.replace(b"\n", b"\r"),
    ],
    ids=["with a byte order mark", "with CRLF", "with CR"],
)
def test_line_ends_and_a_byte_order_mark_do_not_change_the_checksum(make: Make, change):
    raw = f"{HEADER}{FORWARD}\n{NOTES}".encode()
    assert migration.read(make(change(raw))) == migration.read(make(raw))


def test_any_other_byte_changes_the_checksum(make: Make):
    raw = f"{HEADER}{FORWARD}\n{NOTES}".encode()
    checksums = {migration.read(make(each)).checksum for each in (raw, raw + b"\n", raw[:-1])}
    assert len(checksums) == 3


# ---------------------------------------------------------------- what is refused

REFUSED = {
    "no notes": (f"{FORWARD}\n", ["has no ROLLBACK NOTES", "End it with"]),
    "empty notes": (f"{FORWARD}\n-- ROLLBACK NOTES\n", ["line 2", "no SQL", "semicolon"]),
    "prose only": (
        f"{FORWARD}\n-- ROLLBACK NOTES\n-- Nothing to undo.\n",
        ["line 2", "no SQL"],
    ),
    "a mistake in the notes": (
        f"{FORWARD}\n-- ROLLBACK NOTES\n-- First:\n-- DROP TABEL scores;\n",
        ["line 4", "TABEL", "Mend it"],
    ),
    "a statement without its semicolon": (
        f"{FORWARD}\n{NOTES}-- DROP TABLE more\n",
        ["line 4", "no semicolon"],
    ),
    "COMMIT in the notes": (
        f"{FORWARD}\n{NOTES}\n-- Then:\n-- COMMIT;\n",
        ["line 6", "COMMIT", "Remove"],
    ),
    "a psql command in the notes": (f"{FORWARD}\n{NOTES}-- \\i undo.sql\n", ["line 4", r"\\i"]),
    "SQL without comment marks below the notes": (
        f"{FORWARD}\n{NOTES}DROP TABLE scores;\n",
        ["line 4", "without comment marks", "Put --"],
    ),
    "SQL behind a block": (
        f"{FORWARD}\n-- ROLLBACK NOTES\n/*\nDROP TABLE a;\n*/ DROP TABLE b;\n",
        ["line 5", "without comment marks"],
    ),
    "BEGIN": (f"\nBEGIN;\n{FORWARD}\nCOMMIT;\n{NOTES}", ["line 2", "BEGIN", "Remove"]),
    "COMMIT": (f"{FORWARD}\nCOMMIT;\n{NOTES}", ["line 2", "COMMIT", "Remove"]),
    "a savepoint": (f"{FORWARD}\nSAVEPOINT a;\n{NOTES}", ["line 2", "SAVEPOINT"]),
    "a psql command": (f"{FORWARD}\n\\i more.sql\n{NOTES}", ["line 2", r"\i", "psql"]),
    "COPY FROM STDIN": (f"{FORWARD}\nCOPY scores FROM STDIN;\n{NOTES}", ["line 2", "INSERT"]),
    "COPY FROM STDIN with its rows": (
        f"{FORWARD}\nCOPY scores (id) FROM stdin;\n1\n2\n\\.\n{NOTES}",
        ["line 2", "INSERT"],
    ),
    "COPY TO STDOUT": (f"COPY scores TO STDOUT;\n{NOTES}", ["line 1", "psql only"]),
    "a mistake": (f"{FORWARD}\nCREATE TABEL b ();\n{NOTES}", ["line 2", "TABEL", "Mend"]),
    "nothing but comments": (f"{HEADER}\n/* later */\n{NOTES}", ["nothing but comments"]),
    "an empty file": ("", ["nothing but comments"]),
    "a phase that is none": (
        f"{HEADER}-- Phase: kontract\n{FORWARD}\n{NOTES}",
        ["line 5", "'kontract' is no phase; expected expand", "contract", "Mend the line"],
    ),
    "an empty phase": (f"-- Phase:\n{FORWARD}\n{NOTES}", ["line 1", "'' is no phase"]),
    "both phases": (
        f"-- Phase: expand\n-- Phase: contract\n{FORWARD}\n{NOTES}",
        ["line 2", "both phases", "divide it into two"],
    ),
    "a nameless concurrent index": (
        f"CREATE INDEX CONCURRENTLY ON t (a);\n{NOTES}",
        ["line 1", "no name", "Name it"],
    ),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_cannot_be_run_is_refused_by_name_and_line_with_the_remedy(
    make: Make, text, said
):
    with pytest.raises(Refused) as caught:
        migration.read(make(text))
    for part in ["011_scores.sql", *said]:
        assert part in str(caught.value)


def test_a_file_that_is_not_utf_8_is_refused_by_line(make: Make):
    path = make(f"{HEADER}-- caf".encode() + b"\xe9\n" + f"{FORWARD}\n{NOTES}".encode())
    with pytest.raises(Refused, match=r"011_scores\.sql, line 5: byte 0xe9 is not UTF-8\. Save"):
        migration.read(path)


@pytest.mark.parametrize(
    "name", ["11_scores.sql", "scores.sql", "011-scores.sql", "011_Scores.sql", "011_.sql"]
)
def test_a_file_with_another_name_is_refused_with_an_example(make: Make, name):
    make(f"{FORWARD}\n{NOTES}", name)
    with pytest.raises(Refused, match=r"expected NNN_descriptive_name\.sql") as caught:
        migration.read_folder(make(f"{FORWARD}\n{NOTES}").parent)
    assert name in str(caught.value)


def test_files_come_in_the_order_of_their_numbers(make: Make):
    names = ["1000_d.sql", "002_b.sql", "001_a.sql", "20260102030405_e.sql", "0999_c.sql"]
    for name in names:
        path = make(f"{FORWARD}\n{NOTES}", name)
    make("not a migration", "README.md")
    found = migration.read_folder(path.parent)
    assert [each.version for each in found] == [1, 2, 999, 1000, 20260102030405]


def test_a_migration_is_called_the_same_however_many_zeros_its_file_has(make: Make):
    assert migration.read(make(f"{FORWARD}\n{NOTES}", "00011_scores.sql")).label == "011_scores"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(Refused, match="There is no folder"):
        migration.read_folder(tmp_path / "nowhere")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    (tmp_path / "001_a.sql").mkdir()
    with pytest.raises(Refused, match=r"001_a\.sql cannot be read"):
        migration.read_folder(tmp_path)


@pytest.mark.parametrize(("line", "phase"), [("", "expand"), (CONTRACT, "contract")])
def test_the_template_needs_only_its_sql(line, phase):
    text = migration.TEMPLATE.format(
        version=11, title="A {b}", author="C", date="2026-01-02", phase=line
    )
    made = source(text.replace("\n\n\n-- =", f"\n\n{FORWARD}\n\n-- =") + "-- DROP TABLE scores;\n")
    found = migration.parse(made)
    assert (found.title, found.author, found.date) == ("A {b}", "C", "2026-01-02")
    assert (found.reverse, found.phase) == ("DROP TABLE scores;\n", phase)


@pytest.mark.parametrize(
    ("description", "expected"),
    [("Add deal scores!", "add_deal_scores"), ("  Übung 2 ", "bung_2"), ("…", "")],
)
def test_a_description_becomes_a_file_name(description, expected):
    assert migration.slug(description) == expected


def test_a_folder_that_kubernetes_mounted_is_read(tmp_path: Path):
    """A ConfigMap's files are links to ..data, which is a link to the folder of one version."""
    version = tmp_path / "..2026_01_02_03_04_05.678"
    version.mkdir()
    (version / "011_scores.sql").write_text(f"{HEADER}{FORWARD}\n{NOTES}", encoding="utf-8")
    (tmp_path / "..data").symlink_to(version.name)
    (tmp_path / "011_scores.sql").symlink_to("..data/011_scores.sql")
    (found,) = migration.read_folder(tmp_path)
    assert (found.file, migration.parse(found).title) == ("011_scores.sql", "Deal scores")
