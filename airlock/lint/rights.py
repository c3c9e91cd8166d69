"""Rights that become wider than anybody meant."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airlock.lint import sql
from airlock.lint.rule import Problem, Problems, rule
from airlock.lint.site import Site
from airlock.syntax import Node

_GRANT = "sql-grant.html"
_GRANTS = ("GrantStmt", "AlterDefaultPrivilegesStmt", "GrantRoleStmt")
_DEFINER = "sql-createfunction.html#SQL-CREATEFUNCTION-SECURITY"


def _grant(site: Site) -> Node:
    """What is granted, by itself or by default; empty where something is revoked."""
    node = site.node.get("action", site.node)
    return node if node.get("is_grant") else {}


@rule(
    "grant-to-public",
    "error",
    "A right is given to every role there is and will be",
    _GRANT,
    on=_GRANTS,
)
def grant_to_public(site: Site) -> Problems:
    for each in _grant(site).get("grantees", ()):
        role = each.get("RoleSpec", {})
        if role.get("roletype") != "ROLESPEC_PUBLIC":
            continue
        place = role["location"]
        narrower = sql.replaced(site.statement, place, place + len("PUBLIC"), "app_reader")
        yield Problem(
            message="PUBLIC is every role that can connect, those of tomorrow as well.",
            remedy=f"-- To the role that needs it, app_reader for example:\n{narrower};",
        )


@rule(
    "grant-all",
    "warning",
    "ALL PRIVILEGES gives more than is needed",
    _GRANT,
    on=_GRANTS,
)
def grant_all(site: Site) -> Problems:
    node = _grant(site)
    if node and not node.get("privileges") and not node.get("granted_roles"):
        table = node.get("objtype", "OBJECT_TABLE") == "OBJECT_TABLE"
        yield Problem(
            message="ALL has TRUNCATE, TRIGGER and REFERENCES in it, and what later versions add."
            if table
            else "ALL has every right in it, those that later versions add as well.",
            remedy="-- Name the rights that are needed:\n"
            + _replaced(site, r"\bALL(\s+PRIVILEGES)?\b", _needed(node)),
        )


def _needed(node: Node) -> str:
    return {
        "OBJECT_TABLE": "SELECT, INSERT, UPDATE, DELETE",
        "OBJECT_FUNCTION": "EXECUTE",
        "OBJECT_PROCEDURE": "EXECUTE",
        "OBJECT_ROUTINE": "EXECUTE",
        "OBJECT_DATABASE": "CONNECT",
        "OBJECT_LARGEOBJECT": "SELECT",
        "OBJECT_PARAMETER_ACL": "SET",
        "OBJECT_TABLESPACE": "CREATE",
    }.get(node.get("objtype", ""), "USAGE")


@rule(
    "grant-option",
    "warning",
    "Whoever gets the right may hand it on",
    _GRANT,
    on=_GRANTS,
)
def grant_option(site: Site) -> Problems:
    node = _grant(site)
    admin = [each["DefElem"] for each in node.get("opt", ())]
    if node.get("grant_option") or any(_is_admin(each) for each in admin):
        yield Problem(
            message="Whoever gets it may give it to anybody, and nobody sees it in a migration.",
            remedy=_replaced(site, r"\s+WITH\s+(GRANT|ADMIN)\s+(OPTION|TRUE)\b", ""),
        )


def _is_admin(option: Node) -> bool:
    return option["defname"] == "admin" and option.get("arg", {}).get("Boolean", {}).get(
        "boolval", False
    )


def _replaced(site: Site, pattern: str, words: str) -> str:
    text = re.sub(pattern, words, sql.flat(site.statement.text), count=1, flags=re.IGNORECASE)
    return f"{text};"


@rule(
    "security-definer-search-path",
    "error",
    "SECURITY DEFINER without SET search_path runs whatever its caller puts in the way",
    _DEFINER,
    on=("CreateFunctionStmt", "AlterFunctionStmt"),
)
def security_definer_search_path(site: Site) -> Problems:
    options = site.node.get("options") or site.node.get("actions") or ()
    if not _is_definer(options) or _sets_search_path(options) or _is_set_below(site):
        return
    kind = "PROCEDURE" if site.node.get("is_procedure") else "FUNCTION"
    yield Problem(
        message=f"{_name(site)} runs with its owner's rights and its caller's search_path: a "
        "caller who can make a function or operator has it called with these rights.",
        remedy=f"-- Behind it, or as SET in the statement itself:\n"
        f"ALTER {kind} {_name(site)} SET search_path = pg_catalog, pg_temp;",
    )


def _is_set_below(site: Site) -> bool:
    """Whether the file sets it by an ALTER of its own."""
    return any(
        each.kind == "AlterFunctionStmt"
        and sql.strings(each.node["func"].get("objname", ())) == _words(site)
        and _sets_search_path(each.node.get("actions", ()))
        for each in site.script.statements
    )


def _is_definer(options: Sequence[Node]) -> bool:
    return any(
        each["DefElem"]["defname"] == "security"
        and each["DefElem"].get("arg", {}).get("Boolean", {}).get("boolval", False)
        for each in options
    )


def _sets_search_path(options: Sequence[Node]) -> bool:
    settings = [each["DefElem"].get("arg", {}).get("VariableSetStmt", {}) for each in options]
    return any(setting.get("name") == "search_path" for setting in settings)


def _name(site: Site) -> str:
    return ".".join(map(sql.ident, _words(site)))


def _words(site: Site) -> tuple[str, ...]:
    return sql.strings(site.node.get("funcname") or site.node.get("func", {}).get("objname", ()))
