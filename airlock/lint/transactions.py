"""What stands together in one transaction, and should not."""

from __future__ import annotations

from collections.abc import Iterator

from airlock.lint import sql, subjects
from airlock.lint.above import fills, is_bounded, is_strong, takes_time
from airlock.lint.finding import Level
from airlock.lint.release import Release
from airlock.lint.rule import Problem, Problems, release_rule, rule
from airlock.lint.site import NEXT, Site
from airlock.syntax import Statement

_LOCKS = "explicit-locking.html#LOCKING-TABLES"


@rule(
    "ddl-and-backfill",
    "error",
    "A change of the schema and a change of many rows in one transaction",
    _LOCKS,
)
def ddl_and_backfill(site: Site) -> Problems:
    mine = site.prediction
    if site.above.ddl and site.above.fill:
        # It was said where the second of the two stands.
        return
    if fills(mine.statement) and site.touches_existing:
        ddl, fill = site.above.ddl, mine
    elif is_strong(mine):
        ddl, fill = mine, site.above.fill
    else:
        return
    if ddl is None or fill is None:
        return
    locked = next(each for each in ddl.effects if each.blocks_writes)
    yield Problem(
        message=f"{locked.relation} stays locked ({locked.lock_name}, line {ddl.statement.line}) "
        f"until the rows of line {fill.statement.line} are written: both are one transaction.",
        remedy=f"{sql.flat(ddl.statement.text)};\n{NEXT}\n{_batched(site, fill.statement)}",
    )


def _batched(site: Site, statement: Statement) -> str:
    """The statement as a backfill, where it is one that can be cut into batches."""
    text = f"{sql.flat(statement.text)};"
    if statement.kind not in ("UpdateStmt", "DeleteStmt"):
        return f"-- In ranges of a key, each in a transaction of its own:\n{text}"
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
    mine, above = site.prediction, site.above
    # One is told of a transaction, not each of twenty.
    if above.holder is None or above.worked or fills(mine.statement):
        return
    if not takes_time(mine, above.locked):
        return
    names = ", ".join(sorted(str(name) for name in above.locked))
    yield Problem(
        message=f"{names} is locked since line {above.holder.statement.line} "
        "(AccessExclusiveLock), and nobody reads or writes it until this is done, too.",
        remedy=f"{NEXT}\n{sql.flat(mine.statement.text)};",
    )


@rule(
    "unbatched-change",
    "error",
    "UPDATE or DELETE of a large table in one piece",
    "mvcc-intro.html",
)
def unbatched_change(site: Site) -> Problems:
    if site.kind not in _CHANGES:
        yield from _unbatched_in_with(site)
        return
    where = site.node.get("whereClause")
    name = site.world.name(site.range_var)
    rows = site.relation.rows if site.relation else None
    small = rows is not None and rows < site.policy.large_rows
    if not site.touches_existing or site.script.backfill or small or is_bounded(where):
        return
    many = "as many rows as match" if where or site.kind == "MergeStmt" else "every row"
    of = f" of {rows:,}" if rows is not None else ""
    yield Problem(
        # With a condition they may be few.
        level=None if many == "every row" or rows is not None else Level.WARNING,
        message=f"Changes {many}{of} of {name} in one transaction: whoever writes one of them "
        "waits for its end, and vacuum and replicas wait as well.",
        remedy=_batched(site, site.statement),
    )


_CHANGES = ("UpdateStmt", "DeleteStmt", "MergeStmt")


def _unbatched_in_with(site: Site) -> Problems:
    """Rows that are moved, as a rule: WITH gone AS (DELETE …) INSERT …"""
    for each in site.node.get("withClause", {}).get("ctes", ()):
        kind, node = next(iter(each["CommonTableExpr"]["ctequery"].items()))
        if kind not in _CHANGES or is_bounded(node.get("whereClause")):
            continue
        relation = site.world.relation(site.world.key(node["relation"]))
        rows = relation.rows if relation else None
        small = rows is not None and rows < site.policy.large_rows
        if relation is None or relation.new or small:
            continue
        table = sql.qualified(node["relation"])
        yield Problem(
            level=Level.WARNING if rows is None and "whereClause" in node else None,
            message=f"Changes as many rows of {relation.name} as there are in one transaction: "
            "whoever writes one of them waits for its end, and vacuum and replicas wait as well.",
            remedy="-- In pieces, each a transaction of its own, until none is left. In the WITH:\n"
            f"-- … {table} WHERE id IN (SELECT id FROM {table} LIMIT 5000)",
        )


@rule(
    "enum-value-used-at-once",
    "error",
    "A new value of an enum is used in the transaction that adds it",
    "sql-altertype.html#SQL-ALTERTYPE-NOTES",
)
def enum_value_used_at_once(site: Site) -> Problems:
    for earlier in site.above.values:
        node = earlier.node
        value = "'" + str(node.get("newVal")).replace("'", "''") + "'"
        made = sql.strings(node["typeName"]) in site.above.types
        if value in site.statement.text and "oldVal" not in node and not made:
            yield Problem(
                message=f"{value} is added at line {earlier.line}; PostgreSQL refuses "
                "to use it before that transaction is committed.",
                remedy=f"{NEXT}\n{sql.flat(site.statement.text)};",
            )


@release_rule(
    "transaction-left-open",
    "error",
    "A file opens a transaction and does not end it: nothing of it stays",
    "sql-begin.html",
)
def transaction_left_open(release: Release) -> Problems:
    for sites in release.by_script():
        opened = sites[0].script.left_open
        for site in sites if opened else ():
            if site.statement is opened:
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
    leaders: dict[str, str] = {}

    def leader(name: str) -> str:
        while leaders.setdefault(name, name) != name:
            leaders[name] = leaders[leaders[name]]
            name = leaders[name]
        return name

    for _, names in sites:
        first, *others = map(leader, names) if names else ("",)
        for other in others:
            leaders[other] = leader(first)
    groups: dict[str, tuple[Site, set[str]]] = {}
    for site, names in sites:
        for name in names:
            groups.setdefault(leader(name), (site, set()))[1].add(name)
    for site, about in list(groups.values())[1:]:
        shown = sorted(about)
        yield site, ", ".join(shown[:3]) + (" …" if shown[3:] else "")
