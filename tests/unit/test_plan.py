"""Which migrations are pending, and when folder and ledger disagree."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from airlock.errors import Refused
from airlock.migration import MigrationFile
from airlock.plan import AppliedMigration, Plan, pending


def file(version: int, name: str = "", *, text: str | None = None) -> MigrationFile:
    name = name or f"n{version}"
    return MigrationFile(
        version=version,
        name=name,
        path=Path(f"{version:03d}_{name}.sql"),
        text="SELECT 1;\n-- ROLLBACK NOTES\n-- SELECT 2;\n" if text is None else text,
        checksum=f"sum of {version}",
    )


def row(version: int, name: str = "", *, checksum: str = "") -> AppliedMigration:
    return AppliedMigration(
        version=version,
        name=name or f"n{version}",
        checksum=checksum or f"sum of {version}",
        state="applied",
        deploy=1,
        position=1,
        applied_at=datetime(2026, 1, 2, tzinfo=UTC),
        forward="",
        reverse="",
        segments_done=1,
        reverse_segments_done=0,
    )


FILES = tuple(file(n) for n in (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("applied", "up_to", "expected"),
    [
        ([], None, [1, 2, 3, 4]),
        ([], 2, [1, 2]),
        ([1, 2], None, [3, 4]),
        ([1, 2], 3, [3]),
        ([1, 2], 1, []),
        ([1, 2, 3, 4], None, []),
    ],
)
def test_pending_are_the_files_above_what_is_applied(applied, up_to, expected):
    found = pending(FILES, [row(n) for n in applied], up_to=up_to)
    assert [each.version for each in found] == expected


def test_an_empty_folder_has_nothing_pending():
    assert pending([], []) == ()


def test_what_is_not_pending_is_not_parsed():
    # A file that an older version accepted must not stop today's deploy.
    assert pending([file(1, text="not SQL"), file(2)], [row(1)])[0].version == 2


REFUSED = {
    "edited": (
        FILES,
        [row(1), row(2, checksum="0123456789abc")],
        None,
        r"002_n2\.sql changed .* 2026-01-02: checksum 01234567 became sum of 2.*Restore the file",
    ),
    "vanished": (
        FILES[1:],
        [row(1), row(2)],
        None,
        r"001_n1\.sql was applied on 2026-01-02 and is no longer in the folder.*Bring the file",
    ),
    "renamed": (
        FILES,
        [row(1), row(2, "other")],
        None,
        r"002_other\.sql was renamed to 002_n2\.sql.*Give it back",
    ),
    "a number used twice": (
        (file(1), file(2, "a"), file(2, "b"), file(7)),
        [],
        None,
        r"002_a\.sql and 002_b\.sql both carry the number 002.*Rename one of them to 008",
    ),
    "numbered below an applied one": (
        FILES,
        [row(1), row(3)],
        None,
        r"002_n2\.sql is numbered below 003.*Rename it to a number above 004",
    ),
    "an unknown up_to": (FILES, [], 9, r"no migration 009.*001 to 004.*Choose"),
    "an up_to in an empty folder": ((), [], 9, r"no migration 009.*none"),
}


@pytest.mark.parametrize(
    ("files", "applied", "up_to", "said"), REFUSED.values(), ids=REFUSED.keys()
)
def test_folder_and_ledger_that_disagree_are_refused_by_name_with_the_remedy(
    files, applied, up_to, said
):
    with pytest.raises(Refused, match=said):
        pending(files, applied, up_to=up_to)


def test_without_the_checksum_check_an_edited_file_would_pass(monkeypatch):
    edited = [row(1), row(2, checksum="another")]
    with pytest.raises(Refused):
        pending(FILES, edited)
    monkeypatch.setattr("airlock.plan._check_unchanged", lambda *_: None)
    assert [each.version for each in pending(FILES, edited)] == [3, 4]


@pytest.mark.parametrize(
    ("versions", "said"), [([], "none"), ([10], "010"), ([10, 11, 12], "010…012")]
)
def test_a_plan_names_its_versions(versions, said):
    found = Plan(
        target="prod",
        head=None,
        migrations=pending([file(n) for n in versions], []),
        schema_before="f",
    )
    assert found.versions == said
    assert found.checksums == tuple(f"sum of {n}" for n in versions)
