"""A backfill as its file says it: an UPDATE or DELETE, cut into ranges of a key.

The file holds the whole statement, so that it is right by itself; the range of each batch is added
here. That it is added where it is meant is not believed but read back from the grammar: the tree
must be the original's, with the range in front of its condition.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from airlock import syntax
from airlock.effects import Segment
from airlock.errors import Refused
from airlock.syntax import Node, Statement

BATCH = 5000
MAX_BATCH = 1_000_000

EXAMPLE = "-- Airlock: backfill table=deals key=id batch=5000"
_HEADER = re.compile(r"\s*--\s*airlock:\s*backfill\b(.*)", re.IGNORECASE)
_NEARLY = re.compile(r"\s*--\s*airlock:.*\b(table|key|batch)\s*=", re.IGNORECASE)
_NAME = r'(?:"(?:[^"]|"")+"|[A-Za-z_\u0080-\uffff][\w$]*)'
_OPTION = re.compile(rf"\s+(\w+)=({_NAME}(?:\.{_NAME})?|[0-9]+)(?=\s|$)")
_PART = re.compile(_NAME)
_WHERE = re.compile(r"\bwhere\b", re.IGNORECASE)

# What a place in the text is called in the tree, which matters to nobody here.
_PLACES = ("location", "list_start", "list_end", "rexpr_list_start", "rexpr_list_end")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The header line. table: its name, behind its schema's where that is named."""

    text: str
    table: tuple[str, ...]
    key: str
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill(Segment):
    """One statement that runs batch by batch, each in a transaction of its own."""

    header: Header

    @property
    def statement(self) -> Statement:
        return self.statements[0]

    @property
    def relation(self) -> str:
        """The table as the statement names it, quoted."""
        schema = [self._range_var["schemaname"]] if "schemaname" in self._range_var else []
        return syntax.quote_ident(*schema, self._range_var["relname"])

    @property
    def with_children(self) -> bool:
        """Whether rows of its partitions and children are meant as well: no ONLY."""
        return bool(self._range_var.get("inh"))

    @property
    def _range_var(self) -> Node:
        return cast("Node", self.statement.node["relation"])

    def makes(self, columns: Collection[str]) -> bool:
        """Whether what it writes into these columns can be made again from the others."""
        node = self.statement.node
        changed = {target["ResTarget"].get("name") for target in node.get("targetList", [])}
        if not columns or not changed.issuperset(columns):
            return False
        values = {name: part for name, part in node.items() if name != "whereClause"}
        read = [ref["fields"] for name, ref in syntax.walk(values) if name == "ColumnRef"]
        # A row as a whole has them, too.
        wholes = {self._range_var["relname"], self._range_var.get("alias", {}).get("aliasname")}
        return not any(
            "A_Star" in field or field["String"]["sval"] in {*columns, *wholes}
            for fields in read
            for field in fields[-1:]
        )

    def ranged(self, key_type: str, *, first: bool) -> str:
        """The statement for one range: keys up to $1, and above $2 unless it is the first.

        Both are text; key_type is what they are read as, quoted and qualified as the operators
        are: the statement has the path of whoever wrote it.
        Raises Refused where that cannot be told apart from what the statement says itself.
        """
        named = self._range_var.get("alias", {}).get("aliasname") or self._range_var["relname"]
        key = syntax.quote_ident(named, self.header.key)
        limits = [f"{key} OPERATOR(pg_catalog.<=) ($1::pg_catalog.text)::{key_type}"]
        if not first:
            limits.append(f"{key} OPERATOR(pg_catalog.>) ($2::pg_catalog.text)::{key_type}")
        return _restricted(self.statement, " AND ".join(limits))


def header(sql: str) -> Header | None:
    """What the comment lines above the first statement say; None for an ordinary migration.

    Raises Refused when they mean a backfill and cannot be read.
    """
    found: list[Header] = []
    for line in sql.split("\n"):
        if match := _HEADER.fullmatch(line):
            found.append(_parsed(line.strip(), match[1]))
        elif _NEARLY.match(line):
            raise Refused(f"{line.strip()!r} is not understood; expected was '{EXAMPLE}'. Mend it.")
    if len(found) > 1:
        raise Refused("Two lines say backfill. A file holds one: put the other into its own.")
    return found[0] if found else None


def _parsed(line: str, options: str) -> Header:
    said: dict[str, str] = {}
    rest = options.rstrip()
    while match := _OPTION.match(rest):
        said[match[1].lower()] = match[2]
        rest = rest[match.end() :]
    if rest or not said.keys() <= {"table", "key", "batch"} or not {"table", "key"} <= said.keys():
        raise Refused(
            f"{line!r} is not understood; expected were table=NAME key=COLUMN and, if wanted, "
            f"batch=ROWS, as in '{EXAMPLE}'. Mend it."
        )
    batch = said.get("batch", str(BATCH))
    if not batch.isdigit() or not 1 <= int(batch) <= MAX_BATCH:
        raise Refused(
            f"{line!r} has batch={batch}; expected were 1 to {MAX_BATCH:,} rows. Mend it."
        )
    key = _names(said["key"])
    if len(key) != 1:
        raise Refused(f"{line!r} has key={said['key']}; expected was one column's name. Mend it.")
    return Header(text=line, table=_names(said["table"]), key=key[0], batch=int(batch))


def _names(text: str) -> tuple[str, ...]:
    """The parts of a name as PostgreSQL reads it: folded to lower case unless quoted."""
    return tuple(
        part[1:-1].replace('""', '"') if part.startswith('"') else part.lower()
        for part in _PART.findall(text)
    )


def backfill(said: Header, statements: Sequence[Statement]) -> Backfill:
    """The one statement of a backfill. Raises Refused when it is more, or cannot be batched."""
    if len(statements) != 1:
        raise Refused(
            f"It holds {len(statements)} statements; a backfill is one UPDATE or DELETE in a file "
            "of its own. Put the others into another migration."
        )
    statement = statements[0]
    if problem := next(_problems(said, statement), ""):
        raise Refused(f"{statement.summary}: {problem}")
    found = Backfill(statements=(statement,), transactional=False, header=said)
    # Not only when it is run: the file is what has to be mended.
    found.ranged("text", first=False)
    return found


def is_of(said: Header, statement: Statement) -> bool:
    """Whether the statement changes rows of the table that a header names."""
    if statement.kind not in _KINDS:
        return False
    relation = statement.node["relation"]
    schema = [relation["schemaname"]] if "schemaname" in relation else []
    named = (*schema, relation["relname"])
    short = min(len(named), len(said.table))
    return named[-short:] == said.table[-short:]


_KINDS = ("UpdateStmt", "DeleteStmt")
_NESTED = ("InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt")


def _problems(said: Header, statement: Statement) -> Iterator[str]:
    """Why the statement cannot be run batch by batch, the plainest first."""
    node, table = statement.node, ".".join(said.table)
    if statement.kind not in _KINDS:
        yield "a backfill is one UPDATE or DELETE. Write it as one, or leave the header line out."
        return
    if not is_of(said, statement):
        yield f"its header names the table {table}. Name the one that the statement changes."
    names = {name for name, _ in syntax.walk(node)}
    if node.get("returningList") or node.get("returningClause"):
        yield "RETURNING has nobody to return to. Leave it out."
    if names & set(_NESTED):
        yield "the statement inside it would run once per batch. Put it into another migration."
    if names & {"CurrentOfExpr", "ParamRef"}:
        yield "cursors and parameters have no meaning in a file. Write the condition itself."
    if said.key in (target["ResTarget"].get("name") for target in node.get("targetList", [])):
        yield f"it changes {said.key}, and a row that moves would be met twice. Choose another key."


def _restricted(statement: Statement, limits: str) -> str:
    """The statement for fewer rows: those within the limits, which are joined by AND."""
    for text in _candidates(statement, limits):
        try:
            parsed = syntax.parse(text)
        except syntax.SqlError:
            continue
        if len(parsed) == 1 and _plain(parsed[0].node) == _wanted(statement, limits):
            return text
    raise Refused(
        f"{statement.summary}: no place was found for the range of a batch. Write its WHERE more "
        "simply, with nothing behind it."
    )


def _candidates(statement: Statement, limits: str) -> Iterator[str]:
    """Every text that may be it. A line's end closes a comment that the statement may end with."""
    text = statement.text
    if "whereClause" not in statement.node:
        yield f"{text}\nWHERE {limits}"
    for match in _WHERE.finditer(text):
        yield f"{text[: match.start()]}WHERE {limits} AND ({text[match.end() :]}\n)"


def _wanted(statement: Statement, limits: str) -> object:
    (trial,) = syntax.parse(f"SELECT WHERE {limits} AND true")
    *added, _ = trial.node["whereClause"]["BoolExpr"]["args"]
    condition = statement.node.get("whereClause")
    parts = [*added, condition] if condition else added
    alone = len(parts) == 1
    where = parts[0] if alone else {"BoolExpr": {"boolop": "AND_EXPR", "args": parts}}
    return _plain({**statement.node, "whereClause": where})


def _plain(node: object) -> object:
    """The tree without the places where its parts stand."""
    if isinstance(node, dict):
        found = cast("dict[str, object]", node)
        return {name: _plain(child) for name, child in found.items() if name not in _PLACES}
    return [_plain(each) for each in cast("list[object]", node)] if isinstance(node, list) else node
