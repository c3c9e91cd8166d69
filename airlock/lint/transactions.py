"""What stands together in one transaction, and should not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airlock.effects import Prediction
from airlock.lint import sql, subjects
from airlock.lint.finding import Level
from airlock.lint.release import Release
from airlock.lint.rule import Problem, Problems, release_rule, rule
from airlock.lint.site import NEXT, Site
from airlock.syntax import Node, Statement

_LOCKS = "explicit-locking.html#LOCKING-TABLES"
_DML = ("UpdateStmt", "DeleteStmt", "MergeStmt", "InsertStmt")
# What a row is sought by when it is one of few.
_KEYS = ("id", "uuid", "ctid")


@rule(
    "ddl-and-backfill",
    "error",
    "A change of the schema and a change of many rows in one transaction",
    _LOCKS,
)
def ddl_and_backfill(site: Site) -> Problems:
    mine = site.prediction
    if _fills(mine.statement) and site.touches_existing:
        others = [each for each in site.before if _is_strong(each)]
    elif _is_strong(mine):
        others = [each for each in site.before if _fills(each.statement) and each.effects]
    else:
        return
    if not others:
        return
    ddl, fill = (others[0], mine) if _fills(mine.statement) else (mine, others[0])
    locked = next(each for each in ddl.effects if each.blocks_writes)
    yield Problem(
        message=f"{locked.relation} stays locked ({locked.lock_name}, line {ddl.statement.line}) "
        f"until the rows of line {fill.statement.line} are written: both are one transaction.",
        remedy=f"{sql.flat(ddl.statement.text)};\n{NEXT}\n{_batched(site, fill.statement)}",
    )


def _is_strong(prediction: Prediction) -> bool:
    """Whether it is a change of the schema that keeps writers of an existing table out."""
    return prediction.statement.kind not in _DML and prediction.blocks_writes


def _fills(statement: Statement) -> bool:
    """Whether it writes many rows, as far as its text tells."""
    node = statement.node
    if statement.kind == "InsertStmt":
        select = node.get("selectStmt", {}).get("SelectStmt", {})
        return "fromClause" in select
    return statement.kind in _DML and not _is_bounded(node.get("whereClause"))


def _batched(site: Site, statement: Statement) -> str:
    """The statement as a backfill, where it is one that can be cut into batches."""
    text = f"{sql.flat(statement.text)};"
    if statement.kind not in ("UpdateStmt", "DeleteStmt"):
        return text
    relation = statement.node["relation"]
    key = site.key_of(relation)
    return f"-- Airlock: backfill table={sql.qualified(relation)} key={key} batch=5000\n{text}"


@rule(
    "statements-after-lock",
    "warning",
    "Statements behind one that locks a table entirely: nobody uses it until they are done",
    _LOCKS,
)
def statements_after_lock(site: Site) -> Problems:
    mine = site.prediction
    holder = next((each for each in site.before if _locks_out(each)), None)
    if holder is None or _fills(mine.statement):
        return
    locked = {each.relation for each in holder.effects if each.blocks_reads}
    if not _takes_time(mine, locked):
        return
    # One is told of a transaction, not each of twenty.
    behind = site.before[site.before.index(holder) + 1 :]
    if any(_takes_time(each, locked) and not _fills(each.statement) for each in behind):
        return
    names = ", ".join(sorted(str(name) for name in locked))
    yield Problem(
        message=f"{names} is locked since line {holder.statement.line} (AccessExclusiveLock), and "
        "nobody reads or writes it until this is done, too.",
        remedy=f"{NEXT}\n{sql.flat(mine.statement.text)};",
    )


def _locks_out(prediction: Prediction) -> bool:
    return any(each.blocks_reads for each in prediction.effects)


def _takes_time(prediction: Prediction, locked: set[str | None]) -> bool:
    """Whether it works on rows, or has to wait for another lock."""
    if prediction.unknown or any(each.rewrites or each.scans for each in prediction.effects):
        return True
    if prediction.statement.kind in (*_DML, "SelectStmt") or prediction.builds:
        return bool(prediction.effects)
    return any(each.blocks_writes and each.relation not in locked for each in prediction.effects)


@rule(
    "unbatched-change",
    "error",
    "UPDATE or DELETE of a large table in one piece",
    "mvcc-intro.html",
)
def unbatched_change(site: Site) -> Problems:
    if site.kind not in ("UpdateStmt", "DeleteStmt"):
        return
    where = site.node.get("whereClause")
    name = site.world.name(site.range_var)
    rows = site.rows(name)
    small = rows is not None and rows < site.policy.large_rows
    if not site.touches_existing or site.script.backfill or small or _is_bounded(where):
        return
    many = "as many rows as match" if where else "every row"
    of = f" of {rows:,}" if rows is not None else ""
    yield Problem(
        # With a condition they may be few.
        level=None if where is None or rows is not None else Level.WARNING,
        message=f"Changes {many}{of} of {name} in one transaction: whoever writes one of them "
        "waits for its end, and vacuum and replicas wait as well.",
        remedy=_batched(site, site.statement),
    )


def _is_bounded(where: Node | None) -> bool:
    """Whether a condition names its rows by key: ``id = 5``, ``id BETWEEN 1 AND 100``."""
    if where is None:
        return False
    kind, node = next(iter(where.items()))
    if kind == "BoolExpr":
        parts = [_is_bounded(each) for each in node.get("args", ())]
        either = {"AND_EXPR": any, "OR_EXPR": all}.get(node["boolop"])
        return bool(either and either(parts)) or _is_range(node)
    if kind == "SubLink":
        select = node.get("subselect", {}).get("SelectStmt", {})
        return "limitCount" in select
    if kind == "CurrentOfExpr":
        return True
    if kind != "A_Expr" or not _is_key(node.get("lexpr", {})):
        return False
    if node["kind"] == "AEXPR_BETWEEN":
        return True
    operator = sql.strings(node.get("name", ()))
    constant = _is_constant(node.get("rexpr", {}))
    return constant and operator == ("=",) and node["kind"] in ("AEXPR_OP", "AEXPR_IN")


def _is_range(node: Node) -> bool:
    """``id > 1 AND id <= 100``"""
    signs = {
        sql.strings(part["A_Expr"].get("name", ()))[0][:1]
        for part in node.get("args", ())
        if "A_Expr" in part
        and _is_key(part["A_Expr"].get("lexpr", {}))
        and part["A_Expr"]["kind"] == "AEXPR_OP"
    }
    return node["boolop"] == "AND_EXPR" and {"<", ">"} <= signs


def _is_key(node: Node) -> bool:
    names = sql.strings(node.get("ColumnRef", {}).get("fields", ()))
    return bool(names) and (names[-1] in _KEYS or names[-1].endswith("_id"))


def _is_constant(node: Node) -> bool:
    if "List" in node:
        return all(map(_is_constant, node["List"].get("items", ())))
    inner = node["TypeCast"].get("arg", {}) if "TypeCast" in node else node
    return "A_Const" in inner


@rule(
    "enum-value-used-at-once",
    "error",
    "A new value of an enum is used in the transaction that adds it",
    "sql-altertype.html#SQL-ALTERTYPE-NOTES",
)
def enum_value_used_at_once(site: Site) -> Problems:
    for earlier in site.before:
        node = earlier.statement.node
        if earlier.statement.kind != "AlterEnumStmt" or "newVal" not in node:
            continue
        value = "'" + str(node["newVal"]).replace("'", "''") + "'"
        made = any(_makes_type(each.statement, node["typeName"]) for each in site.before)
        if value in site.statement.text and "oldVal" not in node and not made:
            yield Problem(
                message=f"{value} is added at line {earlier.statement.line}; PostgreSQL refuses "
                "to use it before that transaction is committed.",
                remedy=f"{NEXT}\n{sql.flat(site.statement.text)};",
            )


def _makes_type(statement: Statement, name: list[Any]) -> bool:
    return statement.kind == "CreateEnumStmt" and statement.node["typeName"] == name


@release_rule(
    "transaction-left-open",
    "error",
    "A file opens a transaction and does not end it: nothing of it stays",
    "sql-begin.html",
)
def transaction_left_open(release: Release) -> Problems:
    for site in release.sites:
        if site.statement is site.script.left_open:
            yield Problem(
                site=site,
                message="No COMMIT follows: what stands below is undone when the session ends.",
                remedy="COMMIT;",
            )


@release_rule(
    "many-changes",
    "warning",
    "A file makes changes that have nothing to do with each other",
    "",
)
def many_changes(release: Release) -> Problems:
    for sites in release.by_script():
        about = subjects.of([site.statement for site in sites])
        for site, names in _unrelated(list(zip(sites, about, strict=True))):
            yield Problem(
                site=site,
                message=f"From here on it is about {names}, which nothing else here refers to. Two "
                "changes in one file are applied, and undone, together or not at all.",
                remedy="-- Put it into a migration of its own.",
            )


def _unrelated(sites: list[tuple[Site, frozenset[str]]]) -> Iterator[tuple[Site, str]]:
    """Where each further group of related statements begins, and what it is about."""
    groups: list[tuple[Site, frozenset[str]]] = []
    for site, names in sites:
        if not names:
            continue
        linked = [each for each in groups if each[1] & names]
        first = min((each[0] for each in linked), key=_line, default=site)
        groups = [each for each in groups if each not in linked]
        groups.append((first, names.union(*(others for _, others in linked))))
    for site, names in sorted(groups, key=lambda group: _line(group[0]))[1:]:
        shown = sorted(names)
        yield site, ", ".join(shown[:3]) + (" …" if shown[3:] else "")


def _line(site: Site) -> int:
    return site.statement.line
