"""Data types, and what changing a column from one to another costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from airlock.syntax import Node

SERIAL = {
    "serial": "int4",
    "serial4": "int4",
    "bigserial": "int8",
    "serial8": "int8",
    "smallserial": "int2",
    "serial2": "int2",
}
_SPELLED: dict[str, str] = {"decimal": "numeric"}
_OWN = {
    "bit", "bool", "box", "bpchar", "bytea", "char", "cid", "cidr", "circle", "date",
    "datemultirange", "daterange", "decimal", "float4", "float8", "inet", "int2", "int4",
    "int4multirange", "int4range", "int8", "int8multirange", "int8range", "interval", "json",
    "jsonb", "jsonpath", "line", "lseg", "macaddr", "macaddr8", "money", "name", "numeric",
    "nummultirange", "numrange", "oid", "path", "pg_lsn", "point", "polygon", "regclass",
    "regconfig", "regproc", "regprocedure", "regrole", "regtype", "text", "tid", "time",
    "timestamp", "timestamptz", "timetz", "tsmultirange", "tsquery", "tsrange",
    "tstzmultirange", "tstzrange", "tsvector", "uuid", "varbit", "varchar", "xid", "xid8",
    "xml", *SERIAL,
}  # fmt: skip
_MODS = re.compile(r"\(([\d,-]+)\)")
# Types whose values are the same bytes: pg_cast with castmethod b, and what the code adds to it.
_SAME_BYTES = {
    ("varchar", "text"),
    ("text", "varchar"),
    ("cidr", "inet"),
    ("xml", "text"),
    ("xml", "varchar"),
    ("int4", "oid"),
    ("oid", "int4"),
    ("oid", "regclass"),
    ("regclass", "oid"),
    ("bit", "varbit"),
    ("varbit", "bit"),
    ("citext", "text"),
    ("text", "citext"),
    ("citext", "varchar"),
    ("varchar", "citext"),
}
# Whose length or precision is a bound, without which all values fit.
_BOUNDED = {"varchar", "varbit"}
_PRECISION = {"timestamp": 6, "timestamptz": 6, "time": 6, "timetz": 6, "interval": 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Type:
    """A data type. name: pg_type's, ``schema.name`` for those that are not PostgreSQL's own."""

    name: str
    mods: tuple[int, ...] = ()
    array: bool = False

    def __str__(self) -> str:
        mods = f"({','.join(map(str, self.mods))})" if self.mods else ""
        return f"{self.name}{mods}{'[]' if self.array else ''}"

    @property
    def is_serial(self) -> bool:
        return self.name in SERIAL

    @property
    def is_own(self) -> bool:
        """Whether it is one of PostgreSQL's."""
        return "." not in self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A domain over a type. constrained: whether it has a CHECK or NOT NULL."""

    base: Type
    constrained: bool


def from_catalogue(key: str, text: str) -> Type:
    """The type that the catalogue names: pg_type's name, and format_type's text for the rest."""
    mods = _MODS.search(text)
    return Type(
        name=key.removeprefix("_") if text.endswith("[]") else key,
        mods=tuple(int(each) for each in mods[1].split(",")) if mods else (),
        array=text.endswith("[]"),
    )


def from_tree(node: Node, own: Callable[[str], str]) -> Type:
    """The type that a TypeName of the grammar means. own: the key of a type of one's own."""
    names: list[str] = [part["String"]["sval"] for part in node.get("names", [])]
    mods = tuple(_number(each) for each in node.get("typmods", []))
    name = names[-1]
    if len(names) == 1:
        name = _SPELLED.get(name, name) if name in _OWN else own(name)
    elif names[0] != "pg_catalog":
        name = ".".join(names)
    if name == "interval":
        mods = mods[1:]  # the fields come first
    return Type(name=name, mods=mods, array=bool(node.get("arrayBounds")))


def _number(node: Node) -> int:
    return int(node.get("A_Const", {}).get("ival", {}).get("ival", 0))


def needs_rewrite(
    old: Type, new: Type, domains: Mapping[str, Domain], time_zone: str | None
) -> bool | None:
    """Whether a column's values change when its type does; None: unknown.

    https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-NOTES
    """
    if old.name != new.name and (domain := domains.get(new.name)) is not None:
        return domain.constrained or needs_rewrite(old, domain.base, domains, time_zone)
    if old.name != new.name and (domain := domains.get(old.name)) is not None:
        # The bound of a domain's type is not looked at.
        base = replace(domain.base, mods=()) if domain.base.name in _BOUNDED else domain.base
        return needs_rewrite(base, new, domains, time_zone)
    if {old.name, new.name} == {"timestamp", "timestamptz"}:
        return _shifts(old, new, time_zone)
    if old.array and new.array:
        # Elements are converted one by one, unless nothing at all is to be done.
        return old.name != new.name or (bool(new.mods) and old.mods != new.mods)
    if old.array == new.array and (old.name == new.name or (old.name, new.name) in _SAME_BYTES):
        return not _fits(old, new)
    # Extensions bring types of their own, some of which are the same bytes as others.
    is_known = (old.is_own and new.is_own) or old.array != new.array
    return True if is_known else None


def _shifts(old: Type, new: Type, time_zone: str | None) -> bool | None:
    if not _fits(old, new):
        return True
    if time_zone is None:
        return None
    return time_zone.upper() not in ("UTC", "GMT", "ETC/UTC", "ETC/GMT", "UCT", "ETC/UCT")


def _fits(old: Type, new: Type) -> bool:
    """Whether each value of the old type is one of the new type as it is."""
    if old.mods == new.mods and old.name == new.name:
        return True
    if old.name != new.name and new.name in _BOUNDED:
        return not new.mods  # the bound of the other type is not looked at
    if new.name == "numeric" and new.mods:
        (precision, scale), (old_precision, old_scale) = _digits(new), _digits(old)
        return bool(old.mods) and old_scale == scale and old_precision <= precision
    if new.name in _PRECISION:
        most = _PRECISION[new.name]
        return (old.mods[0] if old.mods else most) <= (new.mods[0] if new.mods else most)
    if new.name in _BOUNDED and new.mods:
        return bool(old.mods) and old.mods[0] <= new.mods[0]
    return not new.mods


def _digits(numeric: Type) -> tuple[int, int]:
    precision, *scale = numeric.mods or (0,)
    return precision, scale[0] if scale else 0
