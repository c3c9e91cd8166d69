"""A database's structure without its rows, from the clone into the build database.

Objects belong to the target's own role there. What would lead out of the copy stays behind:
subscriptions, publications, and user mappings with the passwords of other servers. So do event
triggers, which a superuser would have to make.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from airlock import binaries, masking, postgres
from airlock.binaries import Binaries
from airlock.catalogue import Catalogue, diff
from airlock.errors import Refused, Transient
from airlock.introspection import read_catalogue
from airlock.masking import PATTERNS
from airlock.postgres import Conn, quote_ident
from airlock.snapshot import logical, tool

# pg_restore's sections, and apart from the last one what hides rows from the owner himself: under
# FORCE ROW LEVEL SECURITY he could neither check a foreign key nor fill a view.
Section = Literal["pre-data", "post-data", "row security"]

# Airlock's own schemas: the ledger is carried over by itself.
_LEFT_OUT = ("airlock", "airlock_mask")
# A line of `pg_restore --list`, such as "3412; 1418 16401 USER MAPPING public owner".
_STAYS_BEHIND = re.compile(r"\d+; \d+ \d+ (USER MAPPING|(COMMENT - )?EVENT TRIGGER)\b")
# What pg_restore writes in front of each object that it makes.
_HEADING = re.compile(
    r"^-- Name: (?P<name>.*); Type: (?P<type>.*); Schema: (?P<schema>.*); Owner: ", re.MULTILINE
)
_ROW_SECURITY = re.compile(r"\d+; \d+ \d+ ROW SECURITY\b")
_DEFAULT_ACL = re.compile(r"\d+; \d+ \d+ DEFAULT ACL .* (?P<role>\S+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """A dump of a structure: an archive, and the lists of what is restored from it.

    secured: what is in no other section than row security.
    """

    binaries: Binaries
    archive: Path
    listed: Path
    secured: Path


def dump_command(found: Binaries, goal: Path) -> list[str]:
    """The argv of pg_dump for the sections before and after the rows."""
    return [
        str(found.tool("pg_dump")),
        "--format=custom",
        "--section=pre-data",
        "--section=post-data",
        "--no-owner",
        "--no-tablespaces",
        "--no-security-labels",
        # With their comments, for which pg_restore has no option in every version.
        "--no-subscriptions",
        "--no-publications",
        # Short, because its long name changed with version 16: no large objects.
        "-B",
        *(f"--exclude-schema={name}" for name in _LEFT_OUT),
        "--no-password",
        f"--file={goal}",
    ]


def list_command(found: Binaries, archive: Path, goal: Path) -> list[str]:
    return [str(found.tool("pg_restore")), "--list", f"--file={goal}", str(archive)]


def text_command(made: Structure, goal: Path) -> list[str]:
    """The argv of pg_restore that writes what it would run."""
    return [
        str(made.binaries.tool("pg_restore")),
        "--no-owner",
        "--no-tablespaces",
        f"--use-list={made.listed}",
        f"--file={goal}",
        str(made.archive),
    ]


def restore_command(made: Structure, section: Section, *, database: str, jobs: int) -> list[str]:
    """The argv of pg_restore for one section."""
    return [
        str(made.binaries.tool("pg_restore")),
        "--exit-on-error",
        "--no-owner",
        "--no-tablespaces",
        *(
            [f"--use-list={made.secured}"]
            if section == "row security"
            else [f"--section={section}", f"--use-list={made.listed}"]
        ),
        f"--jobs={jobs}",
        "--no-password",
        f"--dbname={database}",
        str(made.archive),
    ]


def restorable(lines: Iterable[str], role: str) -> list[str]:
    """The lines of the list without what stays behind.

    role: whose default privileges are kept; nobody may set those of another role.
    """
    kept: list[str] = []
    for line in lines:
        foreign = (match := _DEFAULT_ACL.match(line)) is not None and match["role"] != role
        if not foreign and not _STAYS_BEHIND.match(line):
            kept.append(line)
    return kept


async def dump(url: str, folder: Path, *, major: int, role: str, tls: bool) -> Structure:
    """The structure of the database at ``url``, in files of the folder.

    major: of its server. role: that the objects will belong to. tls: whether it will be restored
    on a server that is reached over TLS only.
    """
    found = binaries.find(at_least=major, need=logical.DUMP_TOOLS, tls=tls)
    archive, listed = folder / "structure.dump", folder / "structure.list"
    await tool.run(dump_command(found, archive), env=tool.environment(url), produces=archive)
    await tool.run(list_command(found, archive, listed), env=tool.environment(None))
    # At nothing but line feeds: a name may hold what splitlines() takes for the end of a line.
    lines = restorable(listed.read_bytes().decode("utf-8").split("\n"), role)
    secured = folder / "secured.list"
    for path, last in ((listed, False), (secured, True)):
        chosen = [line for line in lines if bool(_ROW_SECURITY.match(line)) == last]
        path.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    return Structure(binaries=found, archive=archive, listed=listed, secured=secured)


async def restore(made: Structure, section: Section, *, url: str, database: str, jobs: int) -> None:
    """One section of the structure, made by the role of ``url`` and belonging to it."""
    try:
        await tool.run(
            restore_command(made, section, database=database, jobs=jobs),
            env=tool.environment(url),
        )
    except Transient as error:
        raise Refused(
            f"The structure ({section}) could not be made in {database}: {error} Staging was not "
            "touched; mend what it names on staging's server."
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """An object of a structure, such as ``comment public.TABLE deals``, and what makes it."""

    label: str
    sql: str


async def objects(made: Structure) -> tuple[Object, ...]:
    """Everything that is carried over as SQL, which no rule masks."""
    text = made.archive.with_suffix(".sql")
    await tool.run(text_command(made, text), env=tool.environment(None))
    script = text.read_text(encoding="utf-8", errors="replace")
    # By whole headings: a line of a body may begin like one.
    headings = list(_HEADING.finditer(script))
    ends = [*(heading.start() for heading in headings[1:]), len(script)]
    return tuple(
        Object(label=_label(heading), sql=script[heading.start() : end])
        for heading, end in zip(headings, ends, strict=True)
    )


def _label(heading: re.Match[str]) -> str:
    schema = "" if heading["schema"] == "-" else f"{heading['schema']}."
    return f"{heading['type'].lower()} {schema}{heading['name']}"


def refuse_planted(found: Iterable[Object], sentinels: Sequence[str]) -> None:
    """Raises Refused naming the objects whose SQL has a sentinel in it: no rule masks a literal."""
    # A literal doubles its quotes and, as E'…', its backslashes.
    doubled = [each.replace("'", "''") for each in sentinels]
    wanted = {*sentinels, *doubled, *(each.replace("\\", "\\\\") for each in doubled)}
    if planted := [each.label for each in found if any(form in each.sql for form in wanted)]:
        raise Refused(
            f"In production's structure there is a sentinel: {', '.join(planted)}. Comments, "
            "defaults and bodies are carried as they are; take the value out of them there."
        )


async def telling(clone: Conn, found: Sequence[Object]) -> tuple[str, ...]:
    """What people are reached or paid by in the SQL of a structure: object, pattern and shape.

    Told, and not refused: an address of one's own company stands in many a comment.
    """
    said: dict[str, None] = {}
    bodies = [each.sql for each in found]
    for pattern in PATTERNS:
        rows = await clone.fetch(
            "SELECT t.n, found[1] AS text"
            " FROM pg_catalog.unnest($1::pg_catalog.text[]) WITH ORDINALITY AS t (body, n),"
            " pg_catalog.regexp_matches(t.body, $2, 'g') AS found",
            bodies,
            f"({pattern.regex})",
        )
        for row in rows:
            if pattern.is_real(row["text"]):
                place = found[int(row["n"]) - 1]
                said[f"{place.label}: {pattern.name} (as {masking.shape(row['text'])})"] = None
    return tuple(said)


async def left_behind(conn: Conn) -> tuple[str, ...]:
    """What is not carried over from the clone, such as ``event triggers: 2``."""
    rows = await conn.fetch(postgres.query("refresh_left_behind"))
    return tuple(f"{row['kind']}: {row['number']:,}" for row in rows)


# ---------------------------------------------------------------- before and after


async def refuse_lacking(clone: Conn, build: Conn) -> None:
    """Raises Refused naming the roles and extensions that the build's server does not have."""
    majors = clone.get_server_version().major, build.get_server_version().major
    if majors[1] < majors[0]:
        raise Refused(
            f"Staging's server is PostgreSQL {majors[1]}, the snapshot's {majors[0]}. A structure "
            "goes into the same version or a newer one; upgrade staging's server."
        )
    wanted = [row["name"] for row in await clone.fetch(postgres.query("refresh_needed_roles"))]
    there = await build.fetch(
        "SELECT rolname AS name FROM pg_catalog.pg_roles WHERE rolname = ANY ($1)", wanted
    )
    if lacking := sorted(set(wanted) - {row["name"] for row in there}):
        made = " ".join(f"CREATE ROLE {quote_ident(name)};" for name in lacking)
        raise Refused(
            f"Production's objects are granted to roles that staging's server does not have: "
            f"{', '.join(lacking)}. Create them there, without a login if nobody is to use them: "
            f"{made}"
        )
    used = await clone.fetch("SELECT extname AS name FROM pg_catalog.pg_extension")
    there = await build.fetch("SELECT name FROM pg_catalog.pg_available_extensions")
    if lacking := sorted({row["name"] for row in used} - {row["name"] for row in there}):
        raise Refused(
            f"Production uses extensions that staging's server does not have: "
            f"{', '.join(lacking)}. Install them there."
        )


async def check_same(clone: Conn, build: Conn) -> Catalogue:
    """The build's schema, which is the clone's but for owners and grants. Raises Refused."""
    expected = (await read_catalogue(clone)).ignoring("owner", "grants")
    found = await read_catalogue(build)
    difference = diff(_comparable(expected), _comparable(found.ignoring("owner", "grants")))
    if not difference.is_empty:
        raise Refused(
            "The structure did not arrive whole in the build database, which differs from the "
            f"snapshot:\n{difference.render()}\nStaging was not touched."
        )
    return found


def _comparable(catalogue: Catalogue) -> Catalogue:
    """Without what is not carried over: ours, what stays behind, rights of other roles."""
    ours = [f"schema {name}" for name in _LEFT_OUT]
    return Catalogue(
        objects={
            key: found
            for key, found in catalogue.objects.items()
            if found.get("schema") not in _LEFT_OUT
            and key not in ours
            and not key.startswith(("default privileges ", "event trigger ", "publication "))
        }
    )
