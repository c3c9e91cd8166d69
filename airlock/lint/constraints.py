"""Constraints whose rows are checked under a strong lock."""

from __future__ import annotations

from airlock.lint import sql
from airlock.lint.above import added_constraints
from airlock.lint.column import Column, columns
from airlock.lint.locks import not_null
from airlock.lint.rule import Problem, Problems, rule
from airlock.lint.site import NEXT, Site
from airlock.syntax import Node

_ALTER = "sql-altertable.html#SQL-ALTERTABLE-NOTES"
_NOT_VALID = "sql-altertable.html#SQL-ALTERTABLE-DESC-ADD-TABLE-CONSTRAINT"
_EXCLUDE = "ddl-constraints.html#DDL-CONSTRAINTS-EXCLUSION"


def _constraint(site: Site, *kinds: str) -> Node | None:
    """The table constraint that a command adds, where it is of one of these kinds."""
    return site.definition if site.definition.get("contype") in kinds else None


def _written(site: Site, constraint: Node) -> str:
    """The constraint as it was written, without its name."""
    text = sql.piece(site.statement, constraint.get("location", 0))
    name = constraint.get("conname")
    return text.split(None, 2)[2] if name and text.upper().startswith("CONSTRAINT") else text


def _not_valid_first(site: Site, name: str, definition: str) -> str:
    if site.partitions and site.world.major < 18 and definition.startswith("FOREIGN KEY"):
        return "\n".join(
            [
                "-- NOT VALID of a partitioned table needs PostgreSQL 18. First of each partition:",
                *(
                    f"ALTER TABLE {part} ADD CONSTRAINT {name} {definition} NOT VALID;"
                    for part in site.partitions
                ),
                NEXT,
                *(f"ALTER TABLE {part} VALIDATE CONSTRAINT {name};" for part in site.partitions),
                NEXT,
                "-- It finds those, and reads nothing:",
                f"ALTER TABLE {site.table} ADD CONSTRAINT {name} {definition};",
            ]
        )
    return (
        f"ALTER TABLE {site.table} ADD CONSTRAINT {name} {definition} NOT VALID;\n"
        f"{NEXT}\nALTER TABLE {site.table} VALIDATE CONSTRAINT {name};"
    )


@rule(
    "foreign-key-validates",
    "error",
    "A foreign key checks every row at once; NOT VALID first, VALIDATE later lets others work",
    _NOT_VALID,
    on=("AT_AddConstraint", "AT_AddColumn"),
)
def foreign_key_validates(site: Site) -> Problems:
    if site.work != "scan":
        return
    if key := _constraint(site, "CONSTR_FOREIGN"):
        names = sql.strings(key.get("fk_attrs", ()))
        name = sql.ident(key.get("conname") or sql.shortened(site.short_table, *names, "fkey"))
        definition, first = _written(site, key), ""
    elif found := _of_column(site, "CONSTR_FOREIGN"):
        column, key = found
        name = sql.ident(sql.shortened(site.short_table, column.plain, "fkey"))
        definition = f"FOREIGN KEY ({column.name}) {column.written(key)}"
        first = f"ALTER TABLE {site.table} ADD COLUMN {column.without('CONSTR_FOREIGN')};\n"
    else:
        return
    yield Problem(
        message=f"Every row is looked up in {sql.qualified(key['pktable'])}. {site.holds}",
        remedy=first + _not_valid_first(site, name, definition),
    )


@rule(
    "check-validates",
    "error",
    "A CHECK reads every row at once; NOT VALID first, VALIDATE later lets others work",
    _NOT_VALID,
    on=("AT_AddConstraint", "AT_AddColumn"),
)
def check_validates(site: Site) -> Problems:
    if site.work != "scan":
        return
    if check := _constraint(site, "CONSTR_CHECK"):
        name = sql.ident(check.get("conname") or sql.shortened(site.short_table, "check"))
        definition, first = _written(site, check), ""
    elif found := _of_column(site, "CONSTR_CHECK"):
        column, check = found
        name = sql.ident(sql.shortened(site.short_table, column.plain, "check"))
        definition = column.written(check)
        first = f"ALTER TABLE {site.table} ADD COLUMN {column.without('CONSTR_CHECK')};\n"
    else:
        return
    yield Problem(
        message=f"Every row is checked. {site.holds}",
        remedy=first + _not_valid_first(site, name, definition),
    )


def _of_column(site: Site, kind: str) -> tuple[Column, Node] | None:
    for column in columns(site):
        if found := column.constraint(kind):
            return column, found
    return None


@rule(
    "domain-constraint-validates",
    "error",
    "A domain's new constraint reads every table that has a column of it",
    "sql-alterdomain.html",
    on="AlterDomainStmt",
)
def domain_constraint_validates(site: Site) -> Problems:
    added = site.node.get("def", {}).get("Constraint")
    if added is None or added.get("skip_validation") or added.get("contype") == "CONSTR_NOTNULL":
        return
    domain = ".".join(sql.ident(name) for name in sql.strings(site.node.get("typeName", ())))
    name = sql.ident(added.get("conname") or sql.shortened(domain.split(".")[-1], "check"))
    holds = site.holds or "Nobody writes the tables that use it (ShareLock) while they are read."
    yield Problem(
        message=f"Every row of each table that uses {domain} is checked. {holds}",
        remedy=f"-- Checks what is written from now on, and reads nothing:\n"
        f"ALTER DOMAIN {domain} ADD CONSTRAINT {name} {_written(site, added)} NOT VALID;\n"
        "-- Its VALIDATE keeps writers out as long as it reads; a CHECK of each table does not.",
    )


@rule(
    "set-not-null",
    "error",
    "SET NOT NULL reads every row while nobody can use the table",
    "sql-altertable.html#SQL-ALTERTABLE-DESC-SET-DROP-NOT-NULL",
    on="AT_SetNotNull",
)
def set_not_null(site: Site) -> Problems:
    if site.work is None:
        return
    column = site.node["name"]
    yield Problem(
        message=f"Every row is read to see that {sql.ident(column)} has no nulls. {site.holds}",
        remedy=not_null(site, column),
    )


@rule(
    "not-null-constraint-validates",
    "error",
    "A NOT NULL constraint reads every row at once; NOT VALID first lets others work",
    _NOT_VALID,
    on="AT_AddConstraint",
)
def not_null_constraint_validates(site: Site) -> Problems:
    added = _constraint(site, "CONSTR_NOTNULL")
    if added is None or site.work is None:
        return
    column = sql.strings(added.get("keys", ()))[0]
    yield Problem(
        message=f"Every row is read to see that {sql.ident(column)} has no nulls. {site.holds}",
        remedy=not_null(site, column),
    )


@rule(
    "add-column-not-null",
    "error",
    "A new column that is NOT NULL without a default fails as soon as there is a row",
    _ALTER,
    on="AT_AddColumn",
)
def add_column_not_null(site: Site) -> Problems:
    (column,) = columns(site)
    filled = ("CONSTR_DEFAULT", "CONSTR_GENERATED", "CONSTR_IDENTITY")
    if (
        column.constraint("CONSTR_NOTNULL", "CONSTR_PRIMARY") is None
        or column.constraint(*filled) is not None
        or column.type.endswith("serial")
        or not site.touches_existing
    ):
        return
    plain = column.without("CONSTR_NOTNULL", "CONSTR_PRIMARY", "CONSTR_UNIQUE")
    yield Problem(
        message=f"{column.name} would be null in the rows there are, so this fails on a table "
        "with rows; and code that does not know the column yet cannot insert any.",
        remedy=f"ALTER TABLE {site.table} ADD COLUMN {plain};\n"
        "-- Fill it: a constant DEFAULT costs nothing, a backfill goes in batches.\n"
        f"{NEXT}\n{not_null(site, column.plain)}",
    )


@rule(
    "unique-without-index",
    "error",
    "UNIQUE or PRIMARY KEY builds its index while nobody can use the table",
    "sql-altertable.html#SQL-ALTERTABLE-DESC-ADD-TABLE-CONSTRAINT-USING-INDEX",
    on=("AT_AddConstraint", "AT_AddColumn"),
)
def unique_without_index(site: Site) -> Problems:
    if not site.prediction.builds:
        return
    kinds, first = ("CONSTR_UNIQUE", "CONSTR_PRIMARY"), ""
    if key := _constraint(site, *kinds):
        if key.get("indexname"):
            return
        names, given = sql.strings(key.get("keys", ())), key.get("conname")
    else:
        column = next(columns(site), None)
        key = column.constraint(*kinds) if column else None
        if column is None or key is None:
            return
        names, given = (column.plain,), key.get("conname")
        plain = column.without(*kinds, "CONSTR_NOTNULL")
        first = f"ALTER TABLE {site.table} ADD COLUMN {plain};\n"
    primary = key["contype"] == "CONSTR_PRIMARY"
    suffix = ("pkey",) if primary else (*names, "key")
    name = sql.ident(given or sql.shortened(site.short_table, *suffix))
    yield Problem(
        message=f"The index is built under the lock. {site.holds}",
        remedy=first + _using_index(site, key, name, names, primary=primary),
    )


def _using_index(site: Site, key: Node, name: str, names: tuple[str, ...], *, primary: bool) -> str:
    """The index first, concurrently, and then the constraint made of it."""
    columns_ = ", ".join(map(sql.ident, names))
    more = f" INCLUDE ({sql.columns(key['including'])})" if key.get("including") else ""
    nulls = " NULLS NOT DISTINCT" if key.get("nulls_not_distinct") else ""
    later = " DEFERRABLE" if key.get("deferrable") else ""
    later += " INITIALLY DEFERRED" if key.get("initdeferred") else ""
    kind = "PRIMARY KEY" if primary else "UNIQUE"
    return (
        f"{_proved(site, names) if primary else ''}"
        f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {site.table} ({columns_}){more}{nulls};\n"
        f"ALTER TABLE {site.table} ADD CONSTRAINT {name} {kind} USING INDEX {name}{later};"
    )


def _proved(site: Site, names: tuple[str, ...]) -> str:
    """The steps to NOT NULL, without which a primary key reads every row."""
    known = site.relation.columns if site.relation else {}
    open_ = [name for name in names if name not in known or not known[name].not_null]
    return "".join(f"{not_null(site, name)}\n{NEXT}\n" for name in open_)


@rule(
    "exclusion-constraint",
    "error",
    "An exclusion constraint builds its index while nobody can use the table",
    _EXCLUDE,
    on="AT_AddConstraint",
)
def exclusion_constraint(site: Site) -> Problems:
    if _constraint(site, "CONSTR_EXCLUSION") and site.prediction.builds:
        yield Problem(
            message=f"The index is built under the lock. {site.holds}",
            remedy="-- It cannot be made of an index that is there. Make a new table with the\n"
            "-- constraint, fill it in batches and swap the names; or keep a window for it.",
        )


@rule(
    "validate-with-not-valid",
    "error",
    "NOT VALID and VALIDATE in one transaction: the rows are read under the strong lock after all",
    _NOT_VALID,
    on="AT_ValidateConstraint",
)
def validate_with_not_valid(site: Site) -> Problems:
    name = site.node.get("name", "")
    added = site.above.constraints.get((site.world.key(site.range_var), name))
    if added is None and name in added_constraints(site.statement):
        added = site.statement
    if added is None or not site.touches_existing:
        return
    yield Problem(
        message=f"{sql.ident(name)} is added at line {added.line} of the same transaction, "
        f"whose lock on {site.table} is kept to its end: nobody writes while every row is read.",
        remedy=f"-- Leave it out here. {NEXT.removeprefix('-- ')}\n"
        f"ALTER TABLE {site.table} VALIDATE CONSTRAINT {sql.ident(name)};",
    )
