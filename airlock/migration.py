"""A migration file: its name, header, forward SQL and rollback notes.

The reverse SQL stands in comment lines, as people write it by hand. What of it is SQL and what is
prose is decided by PostgreSQL's own grammar.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

from airlock import batch, effects, files, protection, syntax
from airlock.errors import Refused

# When a migration is applied: before the new release serves, or after it is healthy.
Phase = Literal["expand", "contract"]

MOST_BYTES = 16 * 2**20
# A version fits a bigint, so that numbers made of a date and a time do.
NAME = re.compile(r"(?P<version>[0-9]{3,18})_(?P<name>[a-z0-9][a-z0-9_]*)\.sql")
_MARKER = re.compile(r"--[\s=\-*#]*rollback notes?[\s:=\-*#]*", re.IGNORECASE)
_HEADER = re.compile(r"--\s*(Purpose|Author|Date):\s*(.*)")
_PHASE = re.compile(r"--\s*Phase:\s*(.*)", re.IGNORECASE)
_TITLE = re.compile(r"--\s*Migration\s+\w+:\s*(.*)", re.IGNORECASE)
_END = re.compile(r";\s*(--.*)?$")
_NOTHING = re.compile(r"\s*nothing to undo\b", re.IGNORECASE)
_STAR = re.compile(r"^\s*\*\s")
_COPY = re.compile(r"\s*COPY\s.*\sFROM\s+STDIN\b", re.IGNORECASE)
_COMMAND = re.compile(
    r"(ALTER|ANALYZE|CALL|CLUSTER|COMMENT|CREATE|DELETE|DO|DROP|GRANT|INSERT|LOCK|MERGE|REFRESH"
    r"|REINDEX|REVOKE|SELECT|SET|TRUNCATE|UPDATE|VACUUM|WITH)\s"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationFile:
    """A file of the migrations folder, read but not yet parsed."""

    version: int
    name: str
    path: Path
    text: str
    checksum: str

    @property
    def file(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One numbered change, with the way back."""

    version: int
    name: str
    file: str
    title: str
    purpose: str
    author: str
    date: str
    checksum: str
    forward: str
    reverse: str
    phase: Phase = "expand"

    @property
    def label(self) -> str:
        """Such as ``010_halt_monitoring``."""
        return label(self.version, self.name)


def label(version: int, name: str) -> str:
    """What a migration is called wherever it is named, however many zeros its file has."""
    return f"{version:03d}_{name}"


def read_folder(folder: Path) -> tuple[MigrationFile, ...]:
    """All migration files, by number. Raises Refused for a name that is not one."""
    if not folder.is_dir():
        raise Refused(
            f"There is no folder {folder}. Create it, or mend migrations in airlock.toml."
        )
    found = [read_file(path) for path in sorted(folder.glob("*.sql"))]
    return tuple(sorted(found, key=lambda file: (file.version, file.name)))


def read_file(path: Path) -> MigrationFile:
    """One migration file with its checksum. Raises Refused when it is not UTF-8 or misnamed."""
    match = NAME.fullmatch(path.name)
    if match is None:
        raise Refused(
            f"{path.name} is not a migration's name; expected NNN_descriptive_name.sql in lower "
            "case, such as 011_deal_scores.sql. Rename it, or move it out of the folder."
        )
    text = read_text(path)
    return MigrationFile(
        version=int(match["version"]),
        name=match["name"],
        path=path,
        text=text,
        checksum=hashlib.sha256(text.encode()).hexdigest(),
    )


def read_text(path: Path) -> str:
    """A file's SQL, without a byte order mark and with Unix line ends. Raises Refused."""
    try:
        content = files.read(_in_its_folder(path), most=MOST_BYTES)
    except OSError as error:
        raise Refused(
            f"{path.name} cannot be read: {error.strerror}. Replace it with a file of SQL."
        ) from error
    raw = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise Refused(
            f"{path.name}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8. "
            "Save the file as UTF-8."
        ) from error


def _in_its_folder(path: Path) -> Path:
    """The file itself where the path is a link, as those that Kubernetes mounts are."""
    folder = path.parent.resolve()
    found = Path(os.path.realpath(path))
    if not found.is_relative_to(folder):
        raise Refused(
            f"{path.name} is a link that leads out of {folder}. Copy the file itself into the "
            "folder; links are followed only within it."
        )
    return found


def read(path: Path) -> Migration:
    """One migration, read and parsed."""
    return parse(read_file(path))


def parse(source: MigrationFile) -> Migration:
    """The parts of a migration file. Raises Refused naming file, line and remedy."""
    lines = source.text.split("\n")
    marker = next((n for n, line in enumerate(lines) if _MARKER.fullmatch(line.strip())), None)
    forward = "\n".join(lines[:marker]).rstrip() + "\n"
    said = _check_forward(source.file, forward)
    if marker is None:
        raise Refused(
            f"{source.file} has no ROLLBACK NOTES. End it with a line '-- ROLLBACK NOTES' and, "
            "below it in comment lines, the SQL that undoes the migration."
        )
    head = [line.strip() for line in lines[:marker]]
    header: dict[str, str] = {}
    for match in filter(None, map(_HEADER.fullmatch, head)):
        header.setdefault(match[1], match[2])
    title = next((match[1] for line in head if (match := _TITLE.fullmatch(line))), "")
    return Migration(
        version=source.version,
        name=source.name,
        file=source.file,
        title=title,
        purpose=header.get("Purpose", ""),
        author=header.get("Author", ""),
        date=header.get("Date", ""),
        checksum=source.checksum,
        forward=forward,
        reverse=_backwards(source.file, said, lines[marker + 1 :], first_line=marker + 2),
        phase=_phase(source.file, head),
    )


def _phase(file: str, head: list[str]) -> Phase:
    """The phase that the header names. What is not understood would be applied too early."""
    named: dict[str, int] = {}
    for number, match in enumerate(map(_PHASE.fullmatch, head), 1):
        if match:
            named.setdefault(match[1].lower(), number)
    for word, number in named.items():
        if word not in get_args(Phase):
            raise Refused(
                f"{file}, line {number}: {word!r} is no phase; expected expand (the default, "
                "before the new release serves) or contract (after it is healthy). Mend the line, "
                "or begin it with another word if it is a remark."
            )
    if len(named) > 1:
        raise Refused(
            f"{file}, line {max(named.values())}: the file names both phases. Leave one of the "
            "lines, or divide it into two migrations."
        )
    return cast("Phase", next(iter(named), "expand"))


def _backwards(file: str, said: batch.Header | None, lines: list[str], *, first_line: int) -> str:
    """The reverse SQL. Where it changes the table of a backfill it has its header as well."""
    sql = _reverse(file, lines, first_line=first_line, may_be_nothing=said is not None)
    if said is None or not any(batch.is_of(said, each) for each in syntax.parse(sql)):
        return sql
    batched = f"{said.text}\n{sql}"
    _backfill(f"{file}, ROLLBACK NOTES", batched)
    return batched


def _check_forward(file: str, sql: str) -> batch.Header | None:
    """The header of a backfill, if it is one."""
    statements = statements_of(file, sql)
    if not statements:
        raise Refused(f"{file} holds nothing but comments. Write the forward SQL above the notes.")
    _check_statements(file, statements)
    return _backfill(file, sql)


def _backfill(file: str, sql: str) -> batch.Header | None:
    """The header of a backfill, whose one statement can be batched; None where it is none."""
    try:
        if (said := batch.header(sql)) is not None:
            batch.backfill(said, syntax.parse(sql))
    except Refused as error:
        raise Refused(f"{file}: {error}") from error
    return said


def statements_of(file: str, sql: str) -> tuple[syntax.Statement, ...]:
    """The statements of a text. Raises Refused naming the line of what is not SQL."""
    try:
        return syntax.parse(sql)
    except syntax.SqlError as error:
        lines = sql.split("\n")
        for number, line in enumerate(lines[: error.line], 1):
            if _COPY.match(line):
                raise Refused(_client_copy(file, number)) from error
        text = lines[error.line - 1].strip()
        if text.startswith("\\"):
            raise Refused(
                f"{file}, line {error.line}: {text.split()[0]} is a command of psql, not SQL. "
                "Write the SQL itself; Airlock sends the file to the server."
            ) from error
        raise Refused(f"{file}, line {error.line}: {error.message}. Mend the SQL.") from error


def _check_statements(file: str, statements: Iterable[syntax.Statement]) -> None:
    for statement in statements:
        if statement.kind == "TransactionStmt":
            raise Refused(
                f"{file}, line {statement.line}: {statement.summary} stands in the file. Remove "
                "it: each migration runs in one transaction together with its ledger row."
            )
        if problem := protection.problem(statement):
            raise Refused(
                f"{file}, line {statement.line}: {statement.summary}: {problem}. Expected were "
                "statements that leave schema airlock alone, or SELECT and GRANT SELECT: it holds "
                "what was done, and only Airlock writes it. Take the statement out."
            )
        if statement.kind == "CopyStmt" and not statement.node.get("filename"):
            raise Refused(_client_copy(file, statement.line))
        if statement.kind == "IndexStmt" and statement.node.get("concurrent"):
            _check_named(file, statement)


def _client_copy(file: str, line: int) -> str:
    return f"{file}, line {line}: COPY from or to the client works in psql only. Use INSERT."


def _check_named(file: str, statement: syntax.Statement) -> None:
    """What an interrupted build leaves is found by its name."""
    if not statement.node.get("idxname"):
        raise Refused(
            f"{file}, line {statement.line}: this concurrent index has no name, so an interrupted "
            "build could not be told from a finished one. Name it."
        )


def _reverse(file: str, lines: list[str], *, first_line: int, may_be_nothing: bool = False) -> str:
    notes = list(_notes(file, lines, first_line))
    found: list[str] = []
    n = 0
    while n < len(notes):
        end = _statement_end(notes, n)
        if end is None:
            _check_prose(file, *notes[n])
            n += 1
            continue
        sql = "\n".join(text for _, text in notes[n:end])
        _check_statements(
            f"{file}, ROLLBACK NOTES",
            # A statement's line within the run, as the file's own line.
            (replace(each, line=notes[n + each.line - 1][0]) for each in syntax.parse(sql)),
        )
        found.append(sql)
        n = end
    said = [text.strip() for _, text in notes if _NOTHING.match(text)] if may_be_nothing else []
    if said and not found:
        # What a column holds goes with the column, in its own migration.
        return f"-- {said[0]}\nSELECT;\n"
    if not found:
        raise Refused(
            f"{file}, line {first_line - 1}: the ROLLBACK NOTES hold no SQL. Write the statements "
            "that undo the migration in comment lines, each ended by a semicolon."
        )
    return "\n".join(found) + "\n"


def _notes(file: str, lines: list[str], first_line: int) -> Iterable[tuple[int, str]]:
    """Line number and text of each comment line, in ``--`` or ``/* */`` form.

    Indentation stays: a function's body is compared with the one that was there before.
    """
    block = False
    for number, line in enumerate(lines, first_line):
        text = line.strip()
        if not block and text.startswith("/*"):
            block, line = True, text.removeprefix("/*")  # noqa: PLW2901 – its mark is gone
        if block:
            body, closed, rest = line.partition("*/")
            block = not closed
            if rest.strip():
                raise Refused(_uncommented(file, number, rest.strip()))
            yield number, _STAR.sub("", body)
        elif text.startswith("--"):
            yield number, line.lstrip().removeprefix("--").removeprefix(" ")
        elif text:
            raise Refused(_uncommented(file, number, text))


def _uncommented(file: str, line: int, text: str) -> str:
    return (
        f"{file}, line {line}: {text[:60]!r} stands below ROLLBACK NOTES without comment marks; a "
        "plain psql -f would run it. Put -- in front, or move it above the notes."
    )


def _statement_end(notes: list[tuple[int, str]], start: int) -> int | None:
    """One past the last line of the shortest run from ``start`` that parses as whole statements."""
    if not notes[start][1].strip():
        return None
    for end in range(start + 1, len(notes) + 1):
        if not _END.search(notes[end - 1][1]):
            continue
        text = "\n".join(line for _, line in notes[start:end])
        try:
            found = syntax.parse(text)
        except syntax.SqlError:
            continue
        if found and found[-1].ended:
            return end
    return None


def _check_prose(file: str, line: int, text: str) -> None:
    if text.startswith("\\"):
        raise Refused(
            f"{file}, line {line}: {text.strip()[:60]!r} in the ROLLBACK NOTES is a command of "
            "psql, not SQL. Write the SQL itself."
        )
    commented_out = text.lstrip().startswith("--")
    if commented_out or not (_END.search(text) or _COMMAND.match(text)):
        return
    try:
        syntax.parse(text)
        problem = "no semicolon ends it"
    except syntax.SqlError as error:
        problem = error.message
    raise Refused(
        f"{file}, line {line}: {text.strip()!r} in the ROLLBACK NOTES looks like SQL but cannot be "
        f"read: {problem}. Mend it; prose should not end with a semicolon or begin with a command."
    )


def script(sql: str) -> tuple[effects.Segment, ...]:
    """A migration's forward or reverse SQL as the transactions it runs in."""
    statements = syntax.parse(sql)
    said = batch.header(sql)
    return (batch.backfill(said, statements),) if said else effects.segments(statements)


TEMPLATE = """\
-- Migration {version:03d}: {title}
-- Purpose: Clear description of what this migration does
-- Author: {author}
-- Date: {date}
{phase}
-- ==============================================
-- FORWARD MIGRATION
-- ==============================================


-- ==============================================
-- ROLLBACK NOTES
-- ==============================================

-- To rollback this migration, run:
--
"""


def slug(description: str) -> str:
    """``"Add deal scores!"`` as ``add_deal_scores``."""
    return re.sub(r"[^a-z0-9]+", "_", description.lower()).strip("_")
