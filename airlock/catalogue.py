"""The catalogue: a schema as data, its fingerprint, and what differs between two of them.

An object's key names it: ``table public.deals``, ``column public.deals.status``,
``function public.score(integer)``. Names are quoted as PostgreSQL's quote_ident would, so that no
two objects share a key; the raw names are among the attributes. An attribute that is absent has its
default.

Not in a catalogue, on purpose:

- the order of columns: a dropped column that a rollback adds again stands last, and nothing that
  names its columns can tell;
- what belongs to an extension (the extension and its version do), to the system, to a session
  (temporary objects) or to Airlock (the schema ``airlock``);
- data and statistics: rows, how far a sequence has counted, what ANALYZE found;
- what belongs to the server: roles, settings of databases, subscriptions, user mappings, large
  objects, security labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
Attributes: TypeAlias = Mapping[str, Json]

# What a line of a diff tells about an object that came or went.
_TELLING = ("type", "definition", "parameters", "version", "labels")
_LINE_WIDTH = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """A schema as data: every object's attributes by its key. Two equal schemas are equal."""

    objects: Mapping[str, Attributes]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal. Computed anew each time."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def tables(self) -> tuple[tuple[str, str], ...]:
        """(schema, name) of all that is read as a table and holds rows.

        Ordinary and partitioned tables, and materialised views with data. The rows of a partitioned
        table are those of its partitions: ``stores`` leaves it out.
        """
        return _names(self._tables())

    @property
    def stores(self) -> tuple[tuple[str, str], ...]:
        """``tables`` without the partitioned ones: each row is in exactly one (read with ONLY)."""
        return _names(found for found in self._tables() if not found.get("partitioned"))

    @property
    def columns_of(self) -> Mapping[tuple[str, str], tuple[str, ...]]:
        """The names of each relation's columns in alphabetical order, by (schema, name)."""
        found: dict[tuple[str, str], list[str]] = {}
        for key, attributes in self.objects.items():
            if key.startswith("column "):
                place = str(attributes["schema"]), str(attributes["table"])
                found.setdefault(place, []).append(str(attributes["name"]))
        return {place: tuple(sorted(names)) for place, names in found.items()}

    def columns(self, schema: str, table: str) -> tuple[str, ...]:
        """The names of one table's columns; ``columns_of`` where there are many tables."""
        return self.columns_of.get((schema, table), ())

    def ignoring(self, *attributes: str) -> Catalogue:
        """Without these attributes, such as owner and grants where a clone has other roles."""
        return Catalogue(
            objects={
                key: {name: value for name, value in found.items() if name not in attributes}
                for key, found in self.objects.items()
            }
        )

    def to_json(self) -> str:
        """The canonical JSON: keys sorted, no white space, one text for one schema."""
        return json.dumps(
            self.objects, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=dict
        )

    @classmethod
    def from_json(cls, text: str) -> Catalogue:
        """The catalogue that ``to_json`` wrote."""
        return cls(objects=json.loads(text))

    def _tables(self) -> Iterable[Attributes]:
        for key, attributes in self.objects.items():
            holds_rows = key.startswith(("table ", "materialized view "))
            if holds_rows and attributes.get("populated", True):
                yield attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One attribute of one object that differs; None where it is absent."""

    key: str
    attribute: str
    before: Json
    after: Json

    def render(self) -> str:
        """``column public.deals.status default: 'a' → 'b'``; long texts from where they part."""
        before, after = _shown(self.before), _shown(self.after)
        where = ""
        if "\n" in before + after:
            where, before, after = _first_difference(before, after)
        return f"{self.key} {self.attribute}{where}: {_cut(before)} → {_cut(after)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaDiff:
    """What one schema has and the other has not. All three are sorted by key."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[Change, ...]
    # What can be said in a line about what was added or removed, by key.
    notes: Mapping[str, str]

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.changed)

    @property
    def objects(self) -> frozenset[str]:
        """The keys of all that differs, however many of an object's attributes do."""
        return frozenset((*self.added, *self.removed, *(change.key for change in self.changed)))

    def render(self, limit: int = 40) -> str:
        """One line per difference (- gone, + new, ~ changed), at most ``limit`` and a count."""
        lines = [
            *(_line("-", key, self.notes) for key in self.removed),
            *(_line("+", key, self.notes) for key in self.added),
            *(f"~ {change.render()}" for change in self.changed),
        ]
        rest = len(lines) - limit
        return "\n".join([*lines[:limit], f"… and {rest} more"] if rest > 0 else lines)

    def to_dict(self) -> dict[str, Json]:
        """The same as plain data for JSON."""
        return {
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": [
                {
                    "key": change.key,
                    "attribute": change.attribute,
                    "before": change.before,
                    "after": change.after,
                }
                for change in self.changed
            ],
            "notes": dict(self.notes),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> SchemaDiff:
        """The diff that ``to_dict`` wrote."""
        return cls(
            added=tuple(plain["added"]),
            removed=tuple(plain["removed"]),
            changed=tuple(Change(**change) for change in plain["changed"]),
            notes=dict(plain["notes"]),
        )


def diff(before: Catalogue, after: Catalogue) -> SchemaDiff:
    """What must be added, removed and changed to come from one schema to the other."""
    old, new = before.objects, after.objects
    added = tuple(sorted(new.keys() - old.keys()))
    removed = tuple(sorted(old.keys() - new.keys()))
    changed = (
        change
        for key in sorted(old.keys() & new.keys())
        if old[key] != new[key]
        for change in _changes(key, old[key], new[key])
    )
    notes = _notes(new, added) | _notes(old, removed)
    return SchemaDiff(added=added, removed=removed, changed=tuple(changed), notes=notes)


def problems(catalogue: Catalogue) -> tuple[str, ...]:
    """A sentence for each index that is not usable and each constraint that is not trusted."""
    return tuple(
        f"{key} is {said}"
        for key, attributes in sorted(catalogue.objects.items())
        for said in _complaints(key, attributes)
    )


def _complaints(key: str, attributes: Attributes) -> Iterable[str]:
    if key.startswith("index "):
        if attributes.get("valid") is False:
            yield "invalid: its build did not finish. Drop it and build it again."
        elif attributes.get("ready") is False:
            yield "not ready: new rows are not entered. Drop it and build it again."
    if key.startswith("constraint ") and attributes.get("enforced", True):
        if attributes.get("validated") is False:
            yield "not validated: older rows may break it. Run ALTER TABLE … VALIDATE CONSTRAINT."
        if attributes.get("disabled"):
            yield "switched off: its triggers are disabled. Run ALTER TABLE … ENABLE TRIGGER ALL."
    if attributes.get("not_null_validated") is False:
        yield "NOT NULL but not validated. Run ALTER TABLE … VALIDATE CONSTRAINT."
    if attributes.get("detach_pending"):
        yield "half detached from its parent. Run ALTER TABLE … DETACH PARTITION … FINALIZE."


def _changes(key: str, before: Attributes, after: Attributes) -> Iterable[Change]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield Change(key=key, attribute=name, before=before.get(name), after=after.get(name))


def _notes(objects: Mapping[str, Attributes], keys: Collection[str]) -> dict[str, str]:
    return {key: note for key in keys if (note := _note(objects[key]))}


def _note(attributes: Attributes) -> str:
    for name in _TELLING:
        if attributes.get(name) is not None:
            return _cut(" ".join(_shown(attributes[name]).split()))
    return ""


def _line(sign: str, key: str, notes: Mapping[str, str]) -> str:
    return f"{sign} {key}  {notes[key]}" if key in notes else f"{sign} {key}"


def _names(found: Iterable[Attributes]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(each["schema"]), str(each["name"])) for each in found))


def _shown(value: Json) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, list):
        return "[" + ", ".join(_shown(each) for each in value) + "]"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _first_difference(before: str, after: str) -> tuple[str, str, str]:
    old, new = before.splitlines(), after.splitlines()
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    line, end = slice(same, same + 1), ["(end)"]
    return f" (line {same + 1})", (old[line] or end)[0].strip(), (new[line] or end)[0].strip()


def _cut(text: str) -> str:
    return text if len(text) <= _LINE_WIDTH else text[: _LINE_WIDTH - 1] + "…"
