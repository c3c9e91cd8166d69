"""What holds a table up while every row is read or written, or an index is built."""

from __future__ import annotations

from airlock.lint import sql
from airlock.lint.column import Column, columns
from airlock.lint.finding import Level
from airlock.lint.rule import Problem, Problems, rule
from airlock.lint.site import LATER, NEXT, Site

# Whose own rule knows more: only other refreshes wait for a concurrent one, for example.
_WITH_RULES = ("RefreshMatViewStmt", "TruncateStmt", "IndexStmt")
_ALTER = "sql-altertable.html#SQL-ALTERTABLE-NOTES"
_LOCKS = "explicit-locking.html#LOCKING-TABLES"
# What is unknown of them is where else they reach: a trigger, a domain's columns, new objects.
_JUDGED_ELSEWHERE = (
    "InsertStmt",
    "UpdateStmt",
    "DeleteStmt",
    "MergeStmt",
    "AlterDomainStmt",
    "CreateExtensionStmt",
    "DropStmt",
)


@rule(
    "column-type-change",
    "error",
    "A column's type changes so that the table is rewritten or scanned",
    _ALTER,
    on="AT_AlterColumnType",
)
def column_type_change(site: Site) -> Problems:
    if site.work is None:
        return
    (column,) = columns(site)
    name = column.plain
    # Longer text is free, and more often meant than shorter.
    level = Level.WARNING if not site.certain and column.type in ("varchar", "text") else None
    if_ = "" if site.certain else "Unless the old type has the same bytes and fits: "
    new, function = sql.ident(f"{name}_new"), sql.ident(sql.shortened("fill", name, "new"))
    whole = sql.piece(site.statement, column.node["typeName"]["location"])
    using = sql.after_word(whole, "USING")
    value = f"{column.name}::{_type_alone(column)}"
    yield Problem(
        level=level,
        message=f"The type of {column.name} changes. {if_}{_lower(site.holds, if_)}",
        remedy=f"ALTER TABLE {site.table} ADD COLUMN {new} {_type_alone(column)};\n"
        f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS\n"
        f"    $$ BEGIN NEW.{new} := NEW.{value}; RETURN NEW; END $$;\n"
        f"CREATE TRIGGER {function} BEFORE INSERT OR UPDATE ON {site.table}\n"
        f"    FOR EACH ROW EXECUTE FUNCTION {function}();\n"
        + ("-- The function should convert as the UPDATE below does.\n" if using else "")
        + f"{NEXT}\n"
        + site.backfill(f"UPDATE {site.table} SET {new} = {using or value} WHERE {new} IS NULL")
        + f"\n{LATER}\n-- Phase: contract\n"
        f"DROP TRIGGER {function} ON {site.table};\nDROP FUNCTION {function}();\n"
        f"ALTER TABLE {site.table} DROP COLUMN {column.name};",
    )


def _lower(sentence: str, before: str) -> str:
    return sentence[:1].lower() + sentence[1:] if before else sentence


def _type_alone(column: Column) -> str:
    """The type without the USING that may stand behind it."""
    return sql.before_word(column.written_type, "USING")


@rule(
    "add-column-volatile-default",
    "error",
    "A new column's default differs from row to row, so the table is rewritten",
    _ALTER,
    on="AT_AddColumn",
)
def add_column_volatile_default(site: Site) -> Problems:
    (column,) = columns(site)
    default = column.constraint("CONSTR_DEFAULT")
    domain = site.world.type_of(column.node["typeName"]).name in site.world.domains
    if site.work != "rewrite" or default is None or domain:
        return
    yield Problem(
        message=f"The default of {column.name} is computed for each row there is. {site.holds}",
        remedy=f"ALTER TABLE {site.table} ADD COLUMN "
        f"{column.without('CONSTR_DEFAULT', 'CONSTR_NOTNULL')};\n"
        f"ALTER TABLE {site.table} ALTER COLUMN {column.name} SET {column.written(default)};\n"
        f"{NEXT}\n{_fill(site, column)}{_then_not_null(site, column)}",
    )


@rule(
    "add-column-generated",
    "error",
    "A new stored generated column is computed for every row, so the table is rewritten",
    "ddl-generated-columns.html",
    on="AT_AddColumn",
)
def add_column_generated(site: Site) -> Problems:
    (column,) = columns(site)
    generated = column.constraint("CONSTR_GENERATED")
    if site.work != "rewrite" or generated is None:
        return
    plain = f"{column.name} {column.written_type}"
    yield Problem(
        message=f"{column.name} is stored and computed for each row there is. {site.holds}",
        remedy=f"-- A plain column that a trigger fills, and a backfill for the rows there are:\n"
        f"ALTER TABLE {site.table} ADD COLUMN {plain};\n"
        f"-- BEFORE INSERT OR UPDATE: {column.written(generated)}\n"
        f"{NEXT}\n{_fill(site, column, value=_inside(column.written(generated)))}",
    )


@rule(
    "add-column-serial",
    "error",
    "A new serial or identity column numbers every row, so the table is rewritten",
    _ALTER,
    on="AT_AddColumn",
)
def add_column_serial(site: Site) -> Problems:
    (column,) = columns(site)
    if site.work != "rewrite" or not _numbers(column):
        return
    sequence = sql.ident(sql.shortened(site.short_table, column.plain, "seq"))
    owner = f"{site.table}.{column.name}"
    yield Problem(
        message=f"{column.name} numbers each row there is. {site.holds}",
        remedy=f"ALTER TABLE {site.table} ADD COLUMN {column.name} bigint;\n"
        f"CREATE SEQUENCE {sequence} OWNED BY {owner};\n"
        f"ALTER TABLE {site.table} ALTER COLUMN {column.name} SET DEFAULT nextval('{sequence}');\n"
        f"{NEXT}\n{_fill(site, column)}",
    )


def _numbers(column: Column) -> bool:
    return column.type.endswith("serial") or column.constraint("CONSTR_IDENTITY") is not None


def _fill(site: Site, column: Column, value: str = "DEFAULT") -> str:
    name = column.name
    return site.backfill(f"UPDATE {site.table} SET {name} = {value} WHERE {name} IS NULL")


def _inside(text: str) -> str:
    """What stands in the outermost parentheses, with them."""
    return text[text.index("(") : text.rindex(")") + 1]


def _then_not_null(site: Site, column: Column) -> str:
    if column.constraint("CONSTR_NOTNULL") is None:
        return ""
    return f"\n{NEXT}\n{not_null(site, column.plain)}"


def not_null(site: Site, column: str) -> str:
    """SET NOT NULL in steps, none of which reads the rows under a strong lock."""
    name, table = sql.ident(column), site.table
    check = sql.ident(sql.shortened(site.short_table, column, "not_null"))
    if site.world.major >= 18:
        return (
            f"ALTER TABLE {table} ADD CONSTRAINT {check} NOT NULL {name} NOT VALID;\n"
            f"{NEXT}\nALTER TABLE {table} VALIDATE CONSTRAINT {check};"
        )
    return (
        f"ALTER TABLE {table} ADD CONSTRAINT {check} CHECK ({name} IS NOT NULL) NOT VALID;\n"
        f"{NEXT}\nALTER TABLE {table} VALIDATE CONSTRAINT {check};\n"
        f"{NEXT}\n-- The valid check is proof enough: nothing is read.\n"
        f"ALTER TABLE {table} ALTER COLUMN {name} SET NOT NULL;\n"
        f"ALTER TABLE {table} DROP CONSTRAINT {check};"
    )


@rule(
    "vacuum-full",
    "error",
    "VACUUM FULL writes the table anew while nobody can use it",
    "sql-vacuum.html",
    on="VacuumStmt",
)
def vacuum_full(site: Site) -> Problems:
    options = [each["DefElem"]["defname"] for each in site.node.get("options", ())]
    if "full" not in options or site.work is None:
        return
    tables = [each["VacuumRelation"]["relation"] for each in site.node.get("rels", ())]
    names = ", ".join(map(sql.qualified, tables))
    yield Problem(
        message=site.holds,
        remedy=f"-- Frees the space for new rows, beside readers and writers:\n"
        f"VACUUM (ANALYZE) {names}".rstrip()
        + ";",
    )


@rule(
    "cluster",
    "error",
    "CLUSTER writes the table anew while nobody can use it",
    "sql-cluster.html",
    on="ClusterStmt",
)
def cluster(site: Site) -> Problems:
    if site.work is None:
        return
    yield Problem(
        message=site.holds,
        remedy="-- There is no CLUSTER beside readers. Leave it out, or keep a window for it; an\n"
        "-- index that has all columns of a query (INCLUDE) often does as well.",
    )


@rule(
    "truncate",
    "error",
    "TRUNCATE of an existing table: all rows go, and nobody can use it",
    "sql-truncate.html",
    on="TruncateStmt",
)
def truncate(site: Site) -> Problems:
    if not site.touches_existing:
        return
    tables = [sql.qualified(each["RangeVar"]) for each in site.node.get("relations", ())]
    wider = ""
    if site.node.get("behavior") == "DROP_CASCADE":
        wider = " CASCADE empties every table that refers to it, too."
    yield Problem(
        message=f"Every row of {', '.join(tables)} is lost.{wider} {site.waiting(None)}",
        remedy=f"\n{NEXT}\n".join(
            f"-- Airlock: backfill table={table} key=id batch=5000\nDELETE FROM {table};"
            for table in tables
        ),
    )


@rule(
    "lock-table",
    "warning",
    "LOCK TABLE keeps others waiting until the transaction ends",
    _LOCKS,
    on="LockStmt",
)
def lock_table(site: Site) -> Problems:
    if not site.prediction.blocks_writes:
        return
    tables = [sql.qualified(each["RangeVar"]) for each in site.node.get("relations", ())]
    yield Problem(
        message=f"{site.waiting(None)} The lock is kept until its transaction ends.",
        remedy="-- Lock the rows that are meant, in a transaction with little else:\n"
        + "\n".join(f"SELECT FROM {table} WHERE id = 1 FOR UPDATE;" for table in tables),
    )


@rule(
    "refresh-not-concurrent",
    "error",
    "REFRESH MATERIALIZED VIEW without CONCURRENTLY: nobody reads the view while it is computed",
    "sql-refreshmaterializedview.html",
    on="RefreshMatViewStmt",
)
def refresh_not_concurrent(site: Site) -> Problems:
    if site.node.get("concurrent") or site.node.get("skipData") or not site.touches_existing:
        return
    yield Problem(
        message=f"Nobody reads {site.table} (AccessExclusiveLock) as long as its query runs.",
        remedy=f"-- It needs a unique index on the view, without WHERE:\n"
        f"REFRESH MATERIALIZED VIEW CONCURRENTLY {site.table};",
    )


@rule(
    "attach-partition",
    "error",
    "ATTACH PARTITION reads every row of the table, for want of a CHECK that proves its bounds",
    "ddl-partitioning.html#DDL-PARTITIONING-DECLARATIVE-MAINTENANCE",
    on="AT_AttachPartition",
)
def attach_partition(site: Site) -> Problems:
    if site.work is None:
        return
    part = sql.qualified(site.definition["name"])
    check = sql.ident(sql.shortened(site.definition["name"]["relname"], "bounds"))
    yield Problem(
        message=f"{part} is read whole to see that its rows belong there. {site.holds}",
        remedy=f"-- Write the key's column for partition_key:\n"
        f"ALTER TABLE {part} ADD CONSTRAINT {check}\n"
        f"    CHECK ({_bounds(sql.flat(site.statement.text))}) NOT VALID;\n"
        f"{NEXT}\nALTER TABLE {part} VALIDATE CONSTRAINT {check};\n"
        f"{NEXT}\n{sql.flat(site.statement.text)};\n"
        f"ALTER TABLE {part} DROP CONSTRAINT {check};",
    )


def _bounds(text: str) -> str:
    """The bounds as a condition on the key; the key's name is not in the statement."""
    known = "partition_key IS NOT NULL"
    if match := sql.RANGE.search(text):
        return f"{known} AND partition_key >= {match[1]} AND partition_key < {match[2]}"
    if match := sql.LIST.search(text):
        return f"{known} AND partition_key IN ({match[1]})"
    return known


@rule(
    "detach-partition",
    "warning",
    "DETACH PARTITION without CONCURRENTLY locks the whole table",
    "sql-altertable.html#SQL-ALTERTABLE-DETACH-PARTITION",
    on="AT_DetachPartition",
)
def detach_partition(site: Site) -> Problems:
    if site.definition.get("concurrent") or not site.prediction.blocks_writes:
        return
    part = sql.qualified(site.definition["name"])
    if site.world.major < 14:
        return
    yield Problem(
        message=site.holds,
        remedy=f"-- Not in a transaction, and not where there is a default partition:\n"
        f"ALTER TABLE {site.table} DETACH PARTITION {part} CONCURRENTLY;",
    )


@rule(
    "replica-identity-full",
    "warning",
    "REPLICA IDENTITY FULL writes each changed row whole into the WAL, and replicas seek it whole",
    "sql-altertable.html#SQL-ALTERTABLE-REPLICA-IDENTITY",
    on="AT_ReplicaIdentity",
)
def replica_identity_full(site: Site) -> Problems:
    if site.definition.get("identity_type") != "f" or not site.touches_existing:
        return
    yield Problem(
        message=f"Each UPDATE and DELETE of {site.table} writes the old row whole into the WAL, "
        "and a subscriber without a fitting index reads its table for each.",
        remedy=f"-- A unique index on columns that are NOT NULL:\n"
        f"ALTER TABLE {site.table} REPLICA IDENTITY USING INDEX "
        + sql.ident(f"{site.short_table}_pkey")
        + ";",
    )


@rule(
    "short-lock",
    "info",
    "A trigger, rule or policy takes a strong lock for a moment",
    _LOCKS,
    on=("CreateTrigStmt", "RuleStmt", "CreatePolicyStmt", "AlterPolicyStmt"),
)
def short_lock(site: Site) -> Problems:
    if site.prediction.blocks_writes:
        yield Problem(
            message=site.holds,
            remedy="-- Safe behind a short lock_timeout with retries, as Airlock runs it; keep it\n"
            "-- apart from statements that take long.",
        )


@rule(
    "unknown-effect",
    "warning",
    "What a statement locks cannot be read from its text",
    "sql-do.html",
)
def unknown_effect(site: Site) -> Problems:
    unknown = all(each.relation is None for each in site.prediction.effects)
    if site.prediction.unknown and unknown and site.kind not in _JUDGED_ELSEWHERE:
        yield Problem(
            message=f"What it locks, and for how long, is not known: {site.prediction.unknown}.",
            remedy="-- Write the statements themselves, so that they can be judged one by one; or\n"
            "-- read what the rehearsal measured: airlock deploy TARGET --dry-run",
        )


@rule(
    "locked-while-working",
    "error",
    "An existing table is written anew or read whole while others wait, for some other reason",
    _ALTER,
    on="*",
)
def locked_while_working(site: Site) -> Problems:
    if site.work is not None and site.kind not in _WITH_RULES:
        yield Problem(message=site.holds, remedy=_window(site))


def _window(site: Site) -> str:
    if site.kind == "AT_AddColumn":
        (column,) = columns(site)
        return (
            f"ALTER TABLE {site.table} ADD COLUMN {column.name} {column.written_type};\n"
            "-- Then a backfill in batches, and its constraints NOT VALID first."
        )
    return (
        "-- There is no form that lets others work meanwhile. Make a new table beside it, fill it\n"
        "-- in batches, and swap the names; or keep a window for it."
    )
