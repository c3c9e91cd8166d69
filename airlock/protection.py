"""What a migration may do with schema ``airlock``: read it, and let others read it.

Only Airlock writes its ledger. What a file says is refused when it is read; what code of the
database does behind its back, when a statement has done it (``ledger_untouched.sql``) and when the
clone's ledger is another one afterwards (``ledger_definition.sql``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

from airlock.syntax import Node, Statement

SCHEMA = "airlock"
# Where a relation is read: FROM and USING, and what is joined there.
_READ = {"fromClause", "larg", "rarg", "usingClause", "sourceRelation"}
# What belongs to a role, whichever schema it is in.
_OWNED = {"DropOwnedStmt": "DROP OWNED", "ReassignOwnedStmt": "REASSIGN OWNED"}
_MAY_BE_GRANTED = {"select", "usage"}
_SETS = {"nextval", "setval", "set_config"}
_NAMED = re.compile(rf"\b{SCHEMA}\b")
# Lists of columns, and what only reads.
_COLUMNS = {"ColumnRef", "keys", "pk_attrs", "fk_attrs", "colnames", "including"}
_SCHEMA_ITSELF = f"it changes schema {SCHEMA}"

_REMARK = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_IS_READ = re.compile(rf'(?<!delete )\b(from|join) (only )?"?{SCHEMA}"? ?\.', re.IGNORECASE)
_IS_NAMED = re.compile(
    rf'\b{SCHEMA}"? ?\.|search_path.*\b{SCHEMA}\b|\bschema (if exists )?"?{SCHEMA}\b'
    r"|\b(drop|reassign) owned\b",
    re.IGNORECASE,
)


def problem(statement: Statement) -> str:
    """How a statement would change Airlock's schema; empty where nothing says that it would."""
    if (owned := _OWNED.get(statement.kind)) is not None:
        return f"{owned} takes the ledger as well"
    if statement.kind == "GrantStmt" and _only_lets_read(statement.node):
        return ""
    return next(_changes(statement.node, ""), "")


def _only_lets_read(node: Node) -> bool:
    given = {each["AccessPriv"].get("priv_name", "all") for each in node.get("privileges", ())}
    return bool(given) and given <= _MAY_BE_GRANTED and not node.get("grant_option")


def _changes(node: object, place: str) -> Iterator[str]:
    """Each way in which what is below changes the schema. place: the field that it stands in."""
    if isinstance(node, dict):
        found = cast("dict[str, Any]", node)
        if "names" in found and "typemod" in found and place not in ("object", "objects"):
            return  # a type is read
        yield from _by_name(found, place)
        for name, child in found.items():
            if name == "FuncCall":
                yield from _by_call(_words(child["funcname"]), child.get("args", []))
                yield from _changes(child.get("args", []), name)
            elif name not in _COLUMNS:
                # What is wrapped stands where its wrapper does.
                yield from _changes(child, place if name[:1].isupper() else name)
    elif isinstance(node, list):
        parts = cast("list[Any]", node)
        if len(parts) > 1 and (words := _words(parts))[:1] == [SCHEMA] and place != "objects":
            yield f"it changes {'.'.join(words)}"
        for child in parts:
            yield from _changes(child, place)


def _by_name(node: dict[str, Any], place: str) -> Iterator[str]:
    if node.get("schemaname") == SCHEMA and place not in _READ:
        yield f"it changes {SCHEMA}.{node['relname']}" if "relname" in node else _SCHEMA_ITSELF
    if SCHEMA in _schemas(node):
        yield _SCHEMA_ITSELF
    if node.get("name") == "search_path" and SCHEMA in _words(node.get("args", [])):
        yield f"it looks names up in {SCHEMA}"
    if node.get("defname") == "as":
        yield from _in_body(" ".join(_words(node.get("arg"))))


def _by_call(called: list[str], args: list[Any]) -> Iterator[str]:
    """A function that changes what one of its constants names."""
    if called[-1] in _SETS and any(_NAMED.search(word) for word in _words(args)):
        yield f"{called[-1]} changes {SCHEMA}"


def _schemas(node: dict[str, Any]) -> list[object]:
    """The schemas that a node changes as a whole, or puts something into."""
    named: list[object] = [node.get("newschema")]
    kinds = {node.get(key) for key in ("objtype", "objectType", "removeType", "targtype")}
    if kinds & {"OBJECT_SCHEMA", "ACL_TARGET_ALL_IN_SCHEMA"}:
        named += _words(node.get("object")) + _words(node.get("objects"))
    if node.get("renameType") == "OBJECT_SCHEMA":
        named += [node.get("subname"), node.get("newname")]
    if "SCHEMA" in f"{node.get('pubobjtype')} {node.get('kind')}":
        named.append(node.get("name"))
    if node.get("defname") in ("schema", "schemas"):
        named += _words(node.get("arg"))
    return named


def _words(node: object) -> list[str]:
    """The strings at the top of a list of nodes, constants among them."""
    if isinstance(node, list):
        return [word for each in cast("list[object]", node) for word in _words(each)]
    if not isinstance(node, dict):
        return []
    found = cast("dict[str, Any]", node)
    for wrapper in ("List", "A_Const", "String", "TypeCast"):
        if wrapper in found:
            return _words(found[wrapper].get("items", found[wrapper].get("arg", found[wrapper])))
    for key in ("sval", "str"):
        if isinstance(text := found.get(key), str):
            return [text]
        if isinstance(text, dict):
            return _words(cast("dict[str, Any]", text))
    return []


def _in_body(text: str) -> Iterator[str]:
    """What the text of a function or a DO says, which is not read as a tree."""
    flat = " ".join(_REMARK.sub(" ", text).split())
    if (match := _IS_NAMED.search(_IS_READ.sub(" ", flat))) is not None:
        yield f"its code says {match[0].strip()!r}"
