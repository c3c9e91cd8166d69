"""Indexes: built, dropped or rebuilt beside readers and writers, or not."""

from __future__ import annotations

from airlock.effects import needs_no_transaction
from airlock.lint import sql
from airlock.lint.release import Release
from airlock.lint.rule import Problem, Problems, release_rule, rule
from airlock.lint.site import Site
from airlock.syntax import Node

_CREATE = "sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY"


@rule(
    "index-not-concurrent",
    "error",
    "CREATE INDEX without CONCURRENTLY: nobody writes the table while it is built",
    _CREATE,
    on="IndexStmt",
)
def index_not_concurrent(site: Site) -> Problems:
    if site.node.get("concurrent") or not site.prediction.builds:
        return
    parts = site.partitions
    if parts and not site.range_var.get("inh"):
        return
    remedy = _by_partition(site, parts) if parts else f"{_concurrently(site)};"
    yield Problem(message=site.holds, remedy=remedy)


def _by_partition(site: Site, parts: list[str]) -> str:
    """The whole first, which is empty, and then each of its parts concurrently."""
    whole = sql.with_words(sql.without_words(site.statement.text, "IF NOT EXISTS"), "ON", "ONLY")
    name = site.node.get("idxname", "")
    if not name:
        name = sql.shortened(site.short_table, "idx")
        whole = sql.with_words(whole, "INDEX", sql.ident(name))
    relation = site.range_var["location"]
    rest = sql.piece(site.statement, relation).partition(" ")[2]
    unique = "UNIQUE " if site.node.get("unique") else ""
    lines = ["-- CONCURRENTLY is not for partitioned tables. First the whole, which is empty:"]
    lines += [f"{whole};", "-- Then each partition's, and attached:"]
    for part in parts:
        own = sql.ident(sql.shortened(part.rpartition(".")[2].strip('"'), name))
        lines.append(f"CREATE {unique}INDEX CONCURRENTLY {own} ON {part} {rest};")
        lines.append(f"ALTER INDEX {sql.ident(name)} ATTACH PARTITION {own};")
    return "\n".join(lines)


def _concurrently(site: Site) -> str:
    """The index by name, concurrently, and not content with an invalid one."""
    text = sql.without_words(site.statement.text, "IF NOT EXISTS")
    text = text if site.node.get("concurrent") else sql.with_words(text, "INDEX", "CONCURRENTLY")
    if not site.node.get("idxname"):
        names = [each["IndexElem"].get("name", "") for each in site.node.get("indexParams", ())]
        name = sql.ident(sql.shortened(site.short_table, *names, "idx"))
        text = sql.with_words(text, "CONCURRENTLY", name)
    return text


@rule(
    "index-if-not-exists",
    "warning",
    "CONCURRENTLY with IF NOT EXISTS accepts the invalid index that an interrupted build left",
    _CREATE,
    on="IndexStmt",
)
def index_if_not_exists(site: Site) -> Problems:
    if not (site.node.get("concurrent") and site.node.get("if_not_exists")):
        return
    name = sql.ident(site.node.get("idxname", ""))
    schema = site.range_var.get("schemaname")
    place = f"{sql.ident(schema)}.{name}" if schema else name
    yield Problem(
        message=f"If a build of {name} was interrupted, an invalid index of that name is there; "
        "this accepts it, and no query uses it.",
        remedy=f"DROP INDEX CONCURRENTLY IF EXISTS {place};\n{_concurrently(site)};",
    )


@rule(
    "drop-index-not-concurrent",
    "error",
    "DROP INDEX without CONCURRENTLY: nobody uses the table meanwhile",
    "sql-dropindex.html",
    on="DropStmt",
)
def drop_index_not_concurrent(site: Site) -> Problems:
    is_index = site.node.get("removeType") == "OBJECT_INDEX"
    if not is_index or site.node.get("concurrent") or not site.touches_existing:
        return
    names = dropped(site.node)
    exists = "IF EXISTS " if site.node.get("missing_ok") else ""
    yield Problem(
        message=site.holds or "Nobody reads or writes its table meanwhile.",
        remedy="\n".join(f"DROP INDEX CONCURRENTLY {exists}{name};" for name in names),
    )


def dropped(node: Node) -> list[str]:
    """What a DROP names, as it would be written."""
    items = [each.get("List", {}).get("items", ()) for each in node.get("objects", ())]
    return [".".join(map(sql.ident, sql.strings(item))) for item in items]


@rule(
    "reindex-not-concurrent",
    "error",
    "REINDEX without CONCURRENTLY: nobody writes the table, nor reads by the index",
    "sql-reindex.html#SQL-REINDEX-CONCURRENTLY",
    on="ReindexStmt",
)
def reindex_not_concurrent(site: Site) -> Problems:
    if site.node.get("kind") == "REINDEX_OBJECT_SYSTEM" or not site.touches_existing:
        return
    if _is_concurrent(site):
        return
    words = {
        "REINDEX_OBJECT_INDEX": "INDEX",
        "REINDEX_OBJECT_TABLE": "TABLE",
        "REINDEX_OBJECT_SCHEMA": "SCHEMA",
        "REINDEX_OBJECT_DATABASE": "DATABASE",
    }
    word = words[site.node["kind"]]
    name = site.table if site.range_var else sql.ident(site.node.get("name", ""))
    yield Problem(
        message=site.holds or "Nobody writes the tables while their indexes are built.",
        remedy=f"REINDEX {word} CONCURRENTLY {name};".replace(" ;", ";"),
    )


def _is_concurrent(site: Site) -> bool:
    if site.node.get("kind") in ("REINDEX_OBJECT_INDEX", "REINDEX_OBJECT_TABLE"):
        return needs_no_transaction(site.statement)
    options = [each["DefElem"] for each in site.node.get("params", ())]
    return any(each["defname"] == "concurrently" for each in options)


@rule(
    "concurrently-in-transaction",
    "error",
    "A statement that PostgreSQL refuses in a transaction stands between BEGIN and COMMIT",
    _CREATE,
)
def concurrently_in_transaction(site: Site) -> Problems:
    if not site.place.opened or site.place.transaction is None:
        return
    if not needs_no_transaction(site.statement):
        return
    yield Problem(
        message="PostgreSQL refuses it inside a transaction, and the file opens one above.",
        remedy=f"COMMIT;\n{sql.flat(site.statement.text)};",
    )


@release_rule(
    "foreign-key-without-index",
    "warning",
    "No index on the columns that refer: each DELETE above reads the whole table below",
    "ddl-constraints.html#DDL-CONSTRAINTS-FK",
)
def foreign_key_without_index(release: Release) -> Problems:
    for key in release.foreign_keys:
        relation = release.world.relations.get(key.table)
        known = relation.indexes.values() if relation else ()
        ready = [
            each.columns
            for each in known
            if each.valid and (not each.partial or each.mentions <= set(each.columns))
        ]
        if any(_leads(each, key.columns) for each in [*ready, *release.indexes[key.table]]):
            continue
        is_new = relation is not None and relation.new
        table, referenced = map(release.world.shown, (key.table, key.referenced))
        columns = ", ".join(map(sql.ident, key.columns))
        name = sql.ident(sql.shortened("idx", key.table.rpartition(".")[2], *key.columns))
        how = "" if is_new else "CONCURRENTLY "
        seen = "" if is_new or release.world.complete else " in these files"
        yield Problem(
            site=key.site,
            message=f"{table} ({columns}) has no index{seen}. Each DELETE in {referenced}, "
            f"and each change of its key, reads all of {table}.",
            remedy=f"CREATE INDEX {how}{name} ON {key.site.table} ({columns});",
        )


def _leads(index: tuple[str, ...], columns: tuple[str, ...]) -> bool:
    """Whether an index begins with the columns, in whatever order."""
    return set(index[: len(columns)]) == set(columns)
