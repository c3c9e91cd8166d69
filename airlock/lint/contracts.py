"""What running code still needs: dropped, renamed, or changed under its hands."""

from __future__ import annotations

from airlock.lint import sql
from airlock.lint.finding import Level
from airlock.lint.indexes import dropped
from airlock.lint.release import Release
from airlock.lint.rule import Problem, Problems, release_rule, rule
from airlock.lint.site import LATER, NEXT, Site

_ALTER = "sql-altertable.html"
_TABLES = ("OBJECT_TABLE", "OBJECT_FOREIGN_TABLE")
_READ = ("OBJECT_VIEW", "OBJECT_MATVIEW")


def _is_due(site: Site) -> bool:
    """Whether it takes something away that the running release may use."""
    taken = site.prediction.drops or site.prediction.breaks
    return site.touches_existing and bool(taken) and site.script.phase != "contract"


@rule(
    "drop-column",
    "error",
    "A column is dropped that running code may use",
    "ddl-alter.html#DDL-ALTER-REMOVING-A-COLUMN",
    on="AT_DropColumn",
)
def drop_column(site: Site) -> Problems:
    if not _is_due(site):
        return
    column = sql.ident(site.node["name"])
    yield Problem(
        message=f"{column} goes with its data, and code that names it (or was prepared with "
        "SELECT *) fails from this moment.",
        remedy=f"-- First a release that does not use it. {LATER.removeprefix('-- ')}\n"
        f"-- Phase: contract\nALTER TABLE {site.table} DROP COLUMN {column};",
    )


@rule(
    "drop-table",
    "error",
    "A table is dropped that running code may use",
    "sql-droptable.html",
    on="DropStmt",
)
def drop_table(site: Site) -> Problems:
    if site.node.get("removeType") in _TABLES and _is_due(site):
        yield _dropped(site, "goes with its data, and")


@rule(
    "drop-view",
    "error",
    "A view is dropped that running code may use",
    "sql-dropview.html",
    on="DropStmt",
)
def drop_view(site: Site) -> Problems:
    made = {"ViewStmt": "view", "CreateTableAsStmt": "into"}
    again = {
        each.node[made[each.kind]].get("relname") or each.node["into"]["rel"]["relname"]
        for each in site.script.statements
        if each.kind in made
    }
    gone = {name.rpartition(".")[2].strip('"') for name in dropped(site.node)}
    if site.node.get("removeType") in _READ and _is_due(site) and not gone <= again:
        yield _dropped(site, "is gone, and")


def _dropped(site: Site, what: str) -> Problem:
    return Problem(
        message=f"{', '.join(dropped(site.node))} {what} code that names it fails from this "
        "moment.",
        remedy=f"-- First a release that does not use it. {LATER.removeprefix('-- ')}\n"
        f"-- Phase: contract\n{sql.flat(site.statement.text)};",
    )


@rule(
    "drop-cascade",
    "warning",
    "CASCADE drops what the statement does not name",
    "ddl-depend.html",
    on=("DropStmt", "AT_DropColumn", "AT_DropConstraint", "DropOwnedStmt"),
)
def drop_cascade(site: Site) -> Problems:
    if site.node.get("behavior") != "DROP_CASCADE" or site.kind == "DropOwnedStmt":
        return
    without = sql.without_words(site.statement.text, "CASCADE")
    phase = "-- Phase: contract\n" if site.script.phase == "contract" else ""
    yield Problem(
        message="Views, foreign keys and whatever else depends on it go without being named.",
        remedy=f"-- First drop by name what goes with it, for a reader to see:\n{phase}{without};",
    )


@rule(
    "drop-database",
    "error",
    "A whole database or schema is dropped",
    "sql-dropdatabase.html",
    on=("DropdbStmt", "DropOwnedStmt", "DropStmt"),
)
def drop_database(site: Site) -> Problems:
    if site.kind == "DropStmt":
        schema = site.node.get("removeType") == "OBJECT_SCHEMA"
        if not schema or site.node.get("behavior") != "DROP_CASCADE":
            return
    yield Problem(
        message="Everything in it is lost; a rollback cannot bring it back.",
        remedy="-- Not in a migration: by hand, with a backup that has been read.",
    )


@rule(
    "rename-column",
    "error",
    "A column is renamed while code uses the old name",
    _ALTER,
    on="RenameStmt",
)
def rename_column(site: Site) -> Problems:
    if site.node.get("renameType") != "OBJECT_COLUMN" or not site.touches_existing:
        return
    old, new = sql.ident(site.node["subname"]), sql.ident(site.node["newname"])
    known = site.relation.columns if site.relation else {}
    column = known.get(site.node["subname"])
    type_ = str(column.type) if column and column.type else ""
    add = f"ALTER TABLE {site.table} ADD COLUMN {new} {type_};"
    fill = site.backfill(f"UPDATE {site.table} SET {new} = {old} WHERE {new} IS NULL")
    yield Problem(
        message=f"Code that names {old} fails from this moment, and code that names {new} failed "
        "until now: no release works with both.",
        remedy=(add if type_ else f"-- With the type of {old}: {add.replace(' ;', ' …;')}")
        + f"\n-- A trigger keeps the two equal, BEFORE INSERT OR UPDATE.\n{NEXT}\n{fill}\n{LATER}\n"
        f"-- Phase: contract\nALTER TABLE {site.table} DROP COLUMN {old};",
    )


@rule(
    "rename-table",
    "error",
    "A table or view is renamed while code uses the old name",
    _ALTER,
    on="RenameStmt",
)
def rename_table(site: Site) -> Problems:
    kinds = (*_TABLES, *_READ)
    if site.node.get("renameType") not in kinds or not site.touches_existing:
        return
    old = site.short_table
    if any(
        each.kind == "ViewStmt" and each.node["view"]["relname"] == old
        for each in site.script.statements
    ):
        return
    schema = site.range_var.get("schemaname")
    new = sql.ident(site.node["newname"])
    yield Problem(
        message=f"Code that names {site.table} fails from this moment.",
        remedy=f"-- A view under the old name serves it; both in one transaction:\n"
        f"{sql.flat(site.statement.text)};\nCREATE VIEW {site.table} AS SELECT * FROM "
        f"{f'{sql.ident(schema)}.' if schema else ''}{new};",
    )


@rule(
    "breaks-running-code",
    "warning",
    "Something that running code may depend on is another afterwards",
    _ALTER,
    on="*",
)
def breaks_running_code(site: Site) -> Problems:
    if site.script.phase == "contract" or _has_a_rule(site):
        return
    if breaks := "; ".join(site.prediction.breaks):
        yield Problem(
            # Prepared statements are made anew; the values are the same.
            level=Level.INFO if site.kind == "AT_AlterColumnType" else None,
            message=f"Code that runs meanwhile finds it changed: {breaks}.",
            remedy="-- Add the new beside the old, let a release use it, and take the old away "
            "later,\n-- in a file that says: Phase: contract",
        )


def _has_a_rule(site: Site) -> bool:
    """Whether another rule looked at it, or it is about something new."""
    if site.kind == "DropStmt":
        return site.node.get("removeType") in (*_TABLES, *_READ)
    if site.kind == "RenameStmt" and site.node.get("renameType") in (*_TABLES, *_READ):
        return True
    return bool(site.range_var) and not site.touches_existing


@release_rule(
    "expand-and-contract",
    "error",
    "What is new and what it replaces are added and taken away in one release",
    _ALTER,
)
def expand_and_contract(release: Release) -> Problems:
    for site, table, old in release.contracts:
        if added := release.added.get(table):
            shown = site.world.shown(table)
            first, new = added[0]
            where = "" if first.script is site.script else f" of {first.script.file}"
            yield Problem(
                site=site,
                message=f"{old} of {shown} goes in the release that brings {new} (line "
                f"{first.statement.line}{where}): while it is rolled out, old and new code run "
                "side by side, and one of them finds the wrong column.",
                remedy=f"-- {LATER.removeprefix('-- ')}\n-- Phase: contract\n"
                f"{_contract(site, old)};",
            )


def _contract(site: Site, old: str) -> str:
    if site.kind == "AT_DropColumn":
        return f"ALTER TABLE {site.table} DROP COLUMN {old}"
    return sql.flat(site.statement.text)


@rule(
    "row-security-off",
    "warning",
    "Row security is switched off for a table",
    "ddl-rowsecurity.html",
    on=("AT_DisableRowSecurity", "AT_NoForceRowSecurity"),
)
def row_security_off(site: Site) -> Problems:
    if site.touches_existing:
        yield Problem(
            message=f"Every role with rights on {site.table} sees all of its rows.",
            remedy=f"-- Widen the one policy that is too narrow: ALTER POLICY … ON {site.table}",
        )
