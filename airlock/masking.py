"""Rules that make production data safe to look at, and the SQL that follows from them.

A rule says what becomes of one column, or of a whole table. Masks are keyed: the same value under
the same key and domain becomes the same masked value, so two refreshes can be compared and joins
survive, and without the key nobody can try values until one fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal, Protocol, TypeAlias, cast, get_args

from airlock.errors import Refused

RuleName = Literal["keep", "null", "hash", "email", "name", "text", "noise", "truncate"]
Place: TypeAlias = tuple[str, str]

# What a rule may be given besides its name.
_ARGUMENTS: Mapping[str, frozenset[str]] = {
    "keep": frozenset({"checked"}),
    "hash": frozenset({"domain"}),
    "email": frozenset({"domain"}),
    "name": frozenset({"domain"}),
    "noise": frozenset({"percent"}),
}
_PERCENT = 10

# A type by what can be done to it. Others can be kept or set to NULL.
_KINDS = {
    "text": "text",
    "varchar": "text",
    "bpchar": "text",
    "citext": "text",
    "uuid": "uuid",
    "int8": "bigint",
    "int4": "integer",
    "int2": "integer",
    "numeric": "numeric",
    "float4": "float",
    "float8": "float",
    "bytea": "bytea",
    "json": "document",
    "jsonb": "document",
    "xml": "document",
    "tsvector": "document",
    "_text": "document",
    "_varchar": "document",
}
_ALLOWED: Mapping[str, frozenset[str]] = {
    "hash": frozenset({"text", "uuid", "bigint", "bytea"}),
    "email": frozenset({"text"}),
    "name": frozenset({"text"}),
    "text": frozenset({"text", "document"}),
    "noise": frozenset({"integer", "bigint", "numeric", "float"}),
}
# Below these, different originals would too often become the same value, or one of the originals.
_NARROWEST = {"hash": 6, "email": 28, "name": 12, "text": 12}
# Rules whose values may stand on both sides of a foreign key.
_JOINABLE = ("keep", "hash", "email", "name")

# What a document without a word of the original looks like, around a keyed hash.
_DOCUMENTS = {
    "json": '{"masked": "%s"}',
    "jsonb": '{"masked": "%s"}',
    "xml": "<masked>%s</masked>",
    "tsvector": "%s",
    "_text": "{%s}",
    "_varchar": "{%s}",
}
_LARGEST = {"int2": 2**15 - 1, "int4": 2**31 - 1, "int8": 2**63 - 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column as far as masking it goes.

    base: the built-in type that a domain or the column itself comes down to; empty for others.
    limit: characters that fit, in an array into each element. scale and precision: of
        numeric(precision, scale).
    """

    name: str
    type: str
    base: str
    limit: int | None = None
    precision: int | None = None
    scale: int | None = None
    not_null: bool = False
    generated: bool = False
    # Whether the rows of a partitioned table are distributed by it.
    distributes: bool = False
    # Whether words can stand in it, as in text, json or an array of text.
    holds_text: bool = False

    @property
    def kind(self) -> str:
        return _KINDS.get(self.base, "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """Columns that hold values of another table's columns."""

    name: str
    columns: tuple[str, ...]
    references: Place
    referenced: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table: ordinary, partitioned (no rows of its own), or a partition (of ``root``)."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    root: Place | None = None
    partitioned: bool = False

    @property
    def place(self) -> Place:
        return self.schema, self.name

    @property
    def label(self) -> str:
        """What airlock.toml calls it: ``deals`` in public, ``sales.deals`` elsewhere."""
        name = _part(self.name)
        return name if self.schema == "public" else f"{_part(self.schema)}.{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What becomes of a column's values; ``truncate`` is for whole tables."""

    name: RuleName
    domain: str | None = None
    percent: float | None = None
    # For keep: a person has looked at what the patterns found.
    checked: bool = False

    def __str__(self) -> str:
        return f'{self.name} in domain "{self.domain}"' if self.domain else self.name


TRUNCATE = Rule(name="truncate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What airlock.toml says about one target, table by table as it names them."""

    target: str
    tables: Mapping[str, Rule | Mapping[str, Rule]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMask:
    """A column with its rule.

    domain, limit, folded: those that all columns of the domain share. folded: without regard to
        case, because one of them is citext, which joins so.
    """

    column: Column
    rule: Rule
    domain: str
    limit: int | None = None
    folded: bool = False

    @property
    def is_masked(self) -> bool:
        return self.rule.name != "keep"

    @property
    def needs_key(self) -> bool:
        return self.rule.name not in ("keep", "null")

    def expression(self, value: str, pads: str) -> str:
        """The masked value as SQL.

        value: the column, quoted. pads: two SQL expressions, the domain's inner and outer key.
        """
        if not self.needs_key:
            return value if self.rule.name == "keep" else "NULL"
        text = f"lower({value}::text)" if self.folded else f"{value}::text"
        digest = f"airlock_mask.digest({text}, {pads})"
        match self.rule.name:
            case "email":
                return f"airlock_mask.email({digest}, {min(20, (self.limit or 64) - 16)})"
            case "name":
                return f"airlock_mask.name({digest}, {self.limit or 19})"
            case "text":
                return self._text(text, digest)
            case "noise":
                return self._noise(value, digest)
            case _:
                return self._hash(digest)

    def _hash(self, digest: str) -> str:
        if self.column.kind != "text":
            return f"airlock_mask.{self.column.kind}({digest})"
        return self._word(digest)

    def _word(self, digest: str) -> str:
        if self.limit is None or self.limit >= 32:
            return f"airlock_mask.long({digest})"
        return f"airlock_mask.short({digest}, {self.limit})"

    def _text(self, text: str, digest: str) -> str:
        if self.column.kind == "document":
            before, after = _DOCUMENTS[self.column.base].split("%s")
            return f"'{before}' || {self._word(digest)} || '{after}'"
        limit = "NULL" if self.limit is None else self.limit
        return f"airlock_mask.filler(length({text}), {digest}, {limit})"

    def _noise(self, value: str, digest: str) -> str:
        share = (self.rule.percent or _PERCENT) / 100
        if self.column.kind == "float":
            small = self.column.base == "float4"
            kind, largest = ("real", "1e37") if small else ("float8", "1e307")
            return f"airlock_mask.near({value}::float8, {digest}, {share}, {largest})::{kind}"
        bounds = ", ".join("NULL" if each is None else str(each) for each in self._bounds())
        return f"airlock_mask.near({value}::numeric, {digest}, {share}, {bounds})"

    def _bounds(self) -> tuple[int | None, int | Decimal | None]:
        """Digits after the point, and the power or number that the value must stay below."""
        if self.column.base in _LARGEST:
            return 0, _LARGEST[self.column.base]
        if self.column.precision is None or self.column.scale is None:
            return None, None
        return self.column.scale, Decimal(10) ** (self.column.precision - self.column.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMask:
    """What becomes of one table, its partitions included."""

    table: Table
    columns: tuple[ColumnMask, ...]
    truncated: bool
    # The tables that its rows stand in: itself, or its partitions.
    stores: tuple[Table, ...]


class Configured(Protocol):
    """What is read of a target: ``settings.Target``."""

    @property
    def name(self) -> str: ...

    @property
    def mask(self) -> Mapping[str, object]: ...


def read_rules(target: Configured) -> Rules:
    """The mask section of a target. Raises Refused naming the key that is wrong."""
    tables: dict[str, Rule | Mapping[str, Rule]] = {}
    for label, given in target.mask.items():
        where = f"airlock.toml: [targets.{target.name}.mask] {label}"
        if isinstance(given, Mapping):
            columns = cast("Mapping[str, object]", given)
            tables[label] = {
                column: _column_rule(f"{where}.{column}", rule) for column, rule in columns.items()
            }
        elif given == "truncate":
            tables[label] = TRUNCATE
        else:
            raise Refused(
                f'{where} is {given!r}; for a whole table there is only "truncate". Write it, or '
                "a rule for each column: airlock mask draft proposes them."
            )
    return Rules(target=target.name, tables=tables)


def _column_rule(where: str, given: object) -> Rule:
    if isinstance(given, Mapping):
        arguments = dict(cast("Mapping[str, object]", given))
        name = arguments.pop("rule", None)
    else:
        arguments, name = {}, given
    if name not in get_args(RuleName) or name == "truncate":
        known = ", ".join(each for each in get_args(RuleName) if each != "truncate")
        hint = " (truncate is for whole tables)" if name == "truncate" else ""
        raise Refused(f"{where}: {name!r} is not a rule for a column{hint}. Choose one of {known}.")
    taken = _ARGUMENTS.get(str(name), frozenset())
    if unknown := sorted(arguments.keys() - taken):
        raise Refused(
            f"{where}: {name} takes {', '.join(sorted(taken)) or 'no arguments'}, not "
            f"{', '.join(unknown)}. Mend that line."
        )
    return _with_arguments(where, Rule(name=cast("RuleName", name)), arguments)


def _with_arguments(where: str, rule: Rule, arguments: Mapping[str, object]) -> Rule:
    domain, percent = arguments.get("domain"), arguments.get("percent", _PERCENT)
    checked = arguments.get("checked", False)
    if domain is not None and not (isinstance(domain, str) and domain):
        raise Refused(f"{where}: domain should be a name. Mend that line.")
    if not isinstance(percent, int | float) or isinstance(percent, bool) or not 1 <= percent < 100:
        raise Refused(f"{where}: percent should be a number from 1 to below 100. Mend that line.")
    if not isinstance(checked, bool):
        raise Refused(f"{where}: checked should be true or false. Mend that line.")
    share = float(percent) if rule.name == "noise" else None
    return replace(rule, domain=domain, percent=share, checked=checked)


# ---------------------------------------------------------------- classification


def classify(rules: Rules, tables: Sequence[Table]) -> tuple[TableMask, ...]:
    """Each table with the rules of all its columns, partitions under their root.

    Rules for what is not there are passed over: see ``absent``.
    Raises Refused with everything that is wrong: columns without a rule, rules of a partition,
    rules that do not fit a type, and foreign keys that would point nowhere.
    """
    roots = _roots(tables)
    missing: list[str] = []
    wrong = list(_of_partitions(rules, tables))
    masks: list[TableMask] = []
    for table in roots:
        given = rules.tables.get(table.label, {})
        if isinstance(given, Rule):
            masks.append(_mask(table, tables, {}, truncated=True))
            continue
        missing += [
            f"{table.label}.{column.name}"
            for column in table.columns
            if not column.generated and column.name not in given
        ]
        wrong += _misfits(table, given)
        masks.append(_mask(table, tables, given, truncated=False))
    if not wrong:
        wrong += [*_split_domains(masks), *_broken_joins(masks, tables)]
    if missing or wrong:
        raise Refused(_complaint(rules.target, missing, wrong))
    return _with_common_forms(masks)


def absent(rules: Rules, tables: Sequence[Table]) -> list[str]:
    """The tables and columns that have a rule and are not there.

    A snapshot may be older than the migration that brings them. A mistaken name is found all the
    same: by the column that has no rule then.
    """
    columns = {table.label: {column.name for column in table.columns} for table in tables}
    found: list[str] = []
    for label, given in rules.tables.items():
        if label not in columns:
            found.append(label)
        elif isinstance(given, Mapping):
            found += [f"{label}.{name}" for name in sorted(given.keys() - columns[label])]
    return found


def _complaint(target: str, missing: Sequence[str], wrong: Sequence[str]) -> str:
    said = list(wrong)
    if missing:
        said.append(
            f"{len(missing)} columns have no rule: {', '.join(missing)}. Every column needs one, "
            f"if only keep; this proposes them: airlock mask draft {target}"
        )
    return f"The masks of {target} do not fit the database.\n" + "\n".join(said)


def _roots(tables: Sequence[Table]) -> tuple[Table, ...]:
    """The tables that carry rules, with what is said of them on the level of their partitions."""
    distributing: dict[Place, set[str]] = {}
    keys: dict[Place, list[ForeignKey]] = {}
    for table in tables:
        root = table.root or table.place
        names = {column.name for column in table.columns if column.distributes}
        distributing.setdefault(root, set()).update(names)
        keys.setdefault(root, []).extend(table.foreign_keys)
    return tuple(
        replace(
            table,
            foreign_keys=tuple(keys[table.place]),
            columns=tuple(
                replace(column, distributes=column.name in distributing[table.place])
                for column in table.columns
            ),
        )
        for table in tables
        if table.root is None
    )


def _mask(
    table: Table, tables: Sequence[Table], given: Mapping[str, Rule], *, truncated: bool
) -> TableMask:
    stores = tuple(
        each for each in tables if not each.partitioned and table.place in (each.place, each.root)
    )
    columns = tuple(
        ColumnMask(
            column=column,
            rule=rule,
            domain=rule.domain or _domain(table, column.name),
            limit=column.limit,
        )
        for column in table.columns
        if (rule := given.get(column.name)) is not None and not column.generated
    )
    return TableMask(table=table, columns=columns, truncated=truncated, stores=stores)


def _of_partitions(rules: Rules, tables: Sequence[Table]) -> Iterator[str]:
    """Rules of tables that take theirs from another one."""
    labels = {table.place: table.label for table in tables}
    for table in tables:
        if table.root is not None and table.label in rules.tables:
            yield f"{table.label} is a partition of {labels[table.root]}: put the rules there."


def _misfits(table: Table, given: Mapping[str, Rule]) -> Iterator[str]:
    for column in table.columns:
        if (rule := given.get(column.name)) is not None and (said := misfit(rule, column)):
            yield f"{table.label}.{column.name}: {said}"


def misfit(rule: Rule, column: Column) -> str | None:
    """Why this rule cannot hold for this column, and what to do; None where it can."""
    if column.generated:
        return "it is computed from other columns and needs no rule. Remove it."
    if rule.name == "keep":
        return None
    if column.distributes:
        return f"it says which partition a row belongs to, and {rule.name} would change that. Keep."
    if rule.name == "null":
        return "it is NOT NULL, so null cannot be its rule." if column.not_null else None
    return _misfit_of_type(rule, column)


def _misfit_of_type(rule: Rule, column: Column) -> str | None:
    if column.kind not in _ALLOWED[rule.name]:
        fitting = [name for name, kinds in _ALLOWED.items() if column.kind in kinds]
        expected = ", ".join(["keep", *([] if column.not_null else ["null"]), *fitting])
        return f"{rule.name} is not for {column.type}. Choose one of {expected}."
    narrowest = _NARROWEST.get(rule.name, 0)
    if column.limit is not None and column.limit < narrowest:
        return (
            f"{column.type} is too narrow for {rule.name}: different values would become equal. "
            f"It needs {narrowest} characters; choose another rule."
        )
    return None


def _split_domains(masks: Sequence[TableMask]) -> Iterator[str]:
    """Domains in which equal values would not stay equal."""
    first: dict[str, tuple[str, ColumnMask]] = {}
    for mask in masks:
        for column in mask.columns:
            if not column.needs_key:
                continue
            label = f"{mask.table.label}.{column.column.name}"
            before, other = first.setdefault(column.domain, (label, column))
            one = (column.rule.name, column.column.kind)
            if one != (other.rule.name, other.column.kind):
                yield (
                    f"{before} ({other.rule.name}, {other.column.type}) and {label} ({one[0]}, "
                    f'{column.column.type}) are both in the domain "{column.domain}", where equal '
                    "values must stay equal. Give them one rule and one type, or two domains."
                )


def _broken_joins(masks: Sequence[TableMask], tables: Sequence[Table]) -> Iterator[str]:
    """Foreign keys that would not find what they refer to."""
    roots = {table.place: table.root or table.place for table in tables}
    by_place = {mask.table.place: mask for mask in masks}
    for mask in masks:
        for key in mask.table.foreign_keys:
            if mask.truncated or key.references not in roots:
                continue
            parent = by_place[roots[key.references]]
            rules = {each.column.name: each for each in mask.columns}
            # One NULL, and the key refers to nothing.
            if any(name in rules and rules[name].rule.name == "null" for name in key.columns):
                continue
            if parent.truncated:
                yield (
                    f"{mask.table.label} ({', '.join(key.columns)}) refers to "
                    f"{parent.table.label}, which is truncated. Truncate {mask.table.label} as "
                    f"well, keep {parent.table.label}, or set the column to null."
                )
                continue
            yield from _broken_pairs(mask, parent, key)


def _broken_pairs(mask: TableMask, parent: TableMask, key: ForeignKey) -> Iterator[str]:
    rules = {each.column.name: each for each in mask.columns}
    theirs = {each.column.name: each for each in parent.columns}
    for column, referenced in zip(key.columns, key.referenced, strict=True):
        if column not in rules or referenced not in theirs:
            continue
        one, other = rules[column], theirs[referenced]
        same = one.rule.name == other.rule.name and one.rule.name in _JOINABLE
        if same and (one.rule.name == "keep" or one.domain == other.domain):
            continue
        yield (
            f"{mask.table.label}.{column} ({_said(one)}) refers to "
            f"{parent.table.label}.{referenced} ({_said(other)}), and the join would break. Keep "
            f'both, or give both {{ rule = "hash", domain = "{other.domain}" }}.'
        )


def _said(mask: ColumnMask) -> str:
    if mask.rule.name not in ("hash", "email", "name"):
        return mask.rule.name
    return f'{mask.rule.name}, domain "{mask.domain}"'


def _with_common_forms(masks: Sequence[TableMask]) -> tuple[TableMask, ...]:
    """The same width and case for a whole domain: a hash cut twice would not be equal."""
    keyed = [each for mask in masks for each in mask.columns if each.needs_key]
    folded = {each.domain for each in keyed if each.column.base == "citext"}
    narrowest: dict[str, int] = {}
    for column in keyed:
        if column.limit is not None:
            known = narrowest.get(column.domain, column.limit)
            narrowest[column.domain] = min(known, column.limit)

    def common(mask: ColumnMask) -> ColumnMask:
        limit, domain = narrowest.get(mask.domain), mask.domain
        return replace(mask, limit=limit, folded=domain in folded) if mask.needs_key else mask

    return tuple(
        replace(mask, columns=tuple(common(each) for each in mask.columns)) for mask in masks
    )


# ---------------------------------------------------------------- draft

# What a column's name says about it, the rules to try in this order, and why. The first that fits
# the column's name and type is proposed; the last resort of all is keep.
_GUESSES: tuple[tuple[str, tuple[RuleName, ...], str], ...] = (
    (
        r"""pass(word|wd|phrase)?|pwd|secret|token|salt|otp|credentials?|api_?key|private_?key
        |session""",
        ("null", "hash", "text"),
        "a secret",
    ),
    (
        r"e?_?mails?|mail_?address|e_?mail_?address",
        ("email", "hash", "null", "text"),
        "an address",
    ),
    (
        r"phones?|mobile|cell|fax|tel|telephone|msisdn",
        ("hash", "noise", "null"),
        "a phone number",
    ),
    (
        r"""iban|bic|account_?(no|number)|card(_?number)?|pan|ssn|passport|tax_?(id|no|number)
        |vat|national_?id|licen[cs]e_?plate""",
        ("hash", "noise", "null"),
        "a number of a person or an account",
    ),
    (
        r"""(first|last|full|middle|family|given|sur|maiden|user|nick|display|contact|holder)?_?name
        |login|author""",
        ("name", "hash", "null"),
        "perhaps a person's name",
    ),
    (
        r"""address|street|city|zip|zip_?code|post(al)?_?code|house_?(no|number)|ip|ip_?address
        |ip_?addr|user_?agent|latitude|longitude|lat|lng|lon""",
        ("text", "hash", "noise", "null"),
        "a place",
    ),
    (
        r"birth_?(day|date)?|date_?of_?birth|dob|born(_?on)?",
        ("null",),
        "a date of birth",
    ),
    (
        r"""notes?|comments?|description|body|message|content|bio|text|remarks?|subject|reason
        |memo|feedback|search(_?vector)?|tsv""",
        ("text", "null"),
        "free text, in which anything may stand",
    ),
    (
        r"salary|wage|income|revenue|balance|compensation|bonus",
        ("noise", "null"),
        "an amount",
    ),
)
# What is said of such a value behind its name, once or more: phone_number, ssn_last4, email2.
_TAIL = r"""(_?(number|no|nr|num|hash(ed)?|digest|enc(rypted)?|normali[sz]ed|lower|raw|line|last
    |[0-9]+))*"""
_GUESSED = tuple(
    (re.compile(rf"(.*_)?({names}){_TAIL}", re.VERBOSE), rules, why)
    for names, rules, why in _GUESSES
)
_KEPT = Rule(name="keep")


def draft(
    tables: Sequence[Table], *, target: str = "staging", classified: Rules | None = None
) -> str:
    """The mask section as TOML, with a proposal for every column and the reason for it.

    classified: rules that stand already; they are repeated and marked. A name decides, and a name
    can lie: what is proposed is to be read by a person.
    """
    known: Mapping[str, Rule | Mapping[str, Rule]] = classified.tables if classified else {}
    roots = _roots(tables)
    joined = _joined(roots, tables)
    whole = [f'{_key(t.label)} = "truncate"' for t in roots if isinstance(known.get(t.label), Rule)]
    lines = [f"[targets.{_key(target)}.mask]", *(f"{each}  # stands already" for each in whole)]
    for table in roots:
        standing = known.get(table.label, {})
        columns = [column for column in table.columns if not column.generated]
        if isinstance(standing, Rule) or not columns:
            continue
        lines += ["", f"[targets.{_key(target)}.mask.{_key(table.label)}]"]
        for column in columns:
            if (rule := standing.get(column.name)) is not None:
                why = "stands already"
            else:
                rule, why = joined.get((table.place, column.name)) or _proposal(column)
            lines.append(f"{_key(column.name)} = {_value(rule)}{_remark(why)}")
    return "\n".join(lines) + "\n"


def _proposal(column: Column) -> tuple[Rule, str]:
    return _by_name(column) or _of_unknown(column)


def _by_name(column: Column) -> tuple[Rule, str] | None:
    spelled = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", column.name).lower()
    for pattern, names, why in _GUESSED:
        if not pattern.fullmatch(spelled):
            continue
        for name in names:
            rule = replace(_KEPT, name=name, percent=_PERCENT if name == "noise" else None)
            if misfit(rule, column) is None:
                return rule, why
        return _KEPT, f"{why}, but no rule fits {column.type}: look at it"
    return None


def _of_unknown(column: Column) -> tuple[Rule, str]:
    """What has words in it is masked until a person has said what they are."""
    if column.kind not in ("text", "document"):
        return _KEPT, ""
    why = f"{'text' if column.kind == 'text' else 'a document'} of which nothing is known"
    rule = Rule(name="text")
    if misfit(rule, column) is None:
        return rule, why
    return _KEPT, f"{why}, but no rule fits {column.type}: look at it"


_End: TypeAlias = tuple[Place, str]


def _joined(roots: Sequence[Table], tables: Sequence[Table]) -> dict[_End, tuple[Rule, str]]:
    """One rule and one domain for all columns that foreign keys tie together."""
    columns = {(table.place, column.name): column for table in roots for column in table.columns}
    ends = _ties(roots, {table.place: table.root or table.place for table in tables})
    places = {table.place: table for table in roots}
    found: dict[_End, tuple[Rule, str]] = {}
    for together in ends:
        members = [columns[end] for end in together if not columns[end].generated]
        first = together[0]
        domain = _domain(places[first[0]], first[1])
        # A key is no free text, and says nothing where only names would.
        proposed = {(_by_name(member) or (_KEPT, ""))[0].name for member in members}
        names: list[RuleName] = ["email", "hash"] if "email" in proposed else ["hash"]
        if proposed == {"keep"}:
            names = []
        fitting = (Rule(name=name, domain=domain) for name in names)
        same = len({member.kind for member in members}) == 1
        rule = next(
            (rule for rule in fitting if same and not any(misfit(rule, m) for m in members)), _KEPT
        )
        why = f"joined with {domain}"
        if rule is _KEPT and any(member.kind == "text" for member in members):
            why += ": look at it"
        found |= dict.fromkeys(together, (rule, why))
    return found


def _ties(roots: Sequence[Table], root_of: Mapping[Place, Place]) -> Sequence[tuple[_End, ...]]:
    """Groups of columns, each tied by foreign keys; what the others refer to stands first."""
    group: dict[_End, list[_End]] = {}
    for table in roots:
        for key in table.foreign_keys:
            if key.references not in root_of:
                continue
            for column, referenced in zip(key.columns, key.referenced, strict=True):
                other = root_of[key.references], referenced
                end = table.place, column
                above, below = group.setdefault(other, [other]), group.setdefault(end, [end])
                if above is not below:
                    above += below
                    group |= dict.fromkeys(below, above)
    return [tuple(ends) for ends in {id(ends): ends for ends in group.values()}.values()]


def _remark(why: str) -> str:
    """A comment; names may hold what a comment of TOML may not."""
    return "  # " + re.sub(r"[\x00-\x1f\x7f]", " ", why) if why else ""


def _value(rule: Rule) -> str:
    arguments = {
        "domain": _quoted(rule.domain) if rule.domain else None,
        "percent": f"{rule.percent:g}" if rule.percent is not None else None,
        "checked": "true" if rule.checked else None,
    }
    given = "".join(f", {name} = {value}" for name, value in arguments.items() if value)
    return f'{{ rule = "{rule.name}"{given} }}' if given else f'"{rule.name}"'


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _quoted(text: str) -> str:
    """A basic string of TOML. https://toml.io/en/v1.0.0#string"""
    escaped = re.sub(
        r'["\\\x00-\x1f\x7f]',
        lambda found: f"\\{found[0]}" if found[0] in '"\\' else f"\\u{ord(found[0]):04x}",
        text,
    )
    return f'"{escaped}"'


# ---------------------------------------------------------------- patterns


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Something by which a person is reached or paid, as a regular expression of PostgreSQL.

    hint: a condition in SQL about ``{0}`` without which there is none. It is asked first, because
        it costs a fraction of the regular expression.
    """

    name: str
    regex: str
    hint: str

    def test(self, text: str) -> str:
        """A condition in SQL about an expression that is a text."""
        return f"({self.hint.format(text)} AND {text} ~ '{self.regex}')"

    def is_real(self, text: str) -> bool:
        return self.name != "an IBAN" or holds_iban(text)


# Letters of every script, for names of hosts.
_LETTERS = r"A-Za-z\u00c0-\u1fff\u3040-\uffee"
# Where a number may begin and end: not within a longer one, a code, or a date.
_BEGINS, _ENDS = "(?:^|[^A-Za-z0-9-])", "(?![0-9A-Za-z-])"
# Nor behind other groups of digits.
_BEGINS_ALONE = "(?:^|(?<![0-9])[^A-Za-z0-9-])"

PATTERNS = (
    # Also as it is written in addresses of the web and in json.
    Pattern(
        name="an e-mail address",
        regex=(
            rf"[0-9{_LETTERS}._%+-]+(?:@|%40|\\u0040)"
            rf"[0-9{_LETTERS}-]+(?:\.[0-9{_LETTERS}-]+)*\.[{_LETTERS}]{{2,}}"
        ),
        hint=r"(strpos({0}, '@') > 0 OR strpos({0}, '%40') > 0 OR strpos({0}, '\u0040') > 0)",
    ),
    # With a country's code; plain digits, dates and amounts have no plus in front.
    Pattern(
        name="a phone number",
        regex=r"(?:^|[^A-Za-z0-9+])\+[1-9][0-9]{0,2}[ ./()-]*(?:[0-9][ ./()-]{0,2}){6,12}[0-9]",
        hint="strpos({0}, '+') > 0",
    ),
    # With it behind 00; or without it: an area code in parentheses, with its leading zero, or in
    # American groups; pairs behind a zero; and plain digits that are a mobile number's.
    Pattern(
        name="a phone number",
        regex="|".join(
            (
                rf"{_BEGINS_ALONE}00[1-9][0-9]{{0,2}}[ /-](?:[0-9][ /-]?){{7,11}}{_ENDS}",
                r"\(0?[1-9][0-9]{1,4}\) ?[0-9]{3,4}[ -]?[0-9]{3,5}\M",
                rf"{_BEGINS}0[1-9][0-9]{{1,3}}[ /][0-9]{{3,4}}[ -]?[0-9]{{3,5}}\M",
                rf"{_BEGINS}0[1-9][0-9]{{1,3}}[ /](?:[0-9]{{2}} ){{2,3}}[0-9]{{2,3}}\M",
                rf"(?:{_BEGINS_ALONE}0[1-9]|\(0[1-9]\))(?:[ .][0-9]{{2}}){{4}}{_ENDS}",
                rf"{_BEGINS}0(?:1[5-7][0-9]{{8,9}}|7[0-9]{{9}}|[67][0-9]{{8}}){_ENDS}",
                rf"{_BEGINS_ALONE}(?:1[-. ])?(?:[2-9][0-9]{{2}}[-. ]){{2}}[0-9]{{4}}{_ENDS}",
            )
        ),
        hint=(
            "octet_length({0}) > 8 AND (strpos({0}, '(') > 0"
            " OR {0} ~ '[0-9](?:[ ./()-]{{0,2}}[0-9]){{8}}')"
        ),
    ),
    # As many groups as follow one another: what looks like the beginning of one may hide another.
    Pattern(
        name="an IBAN",
        regex=r"\m[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,}(?: ?[A-Z0-9]{1,3})?\M",
        hint="octet_length({0}) > 14",
    ),
)

# Characters of an IBAN by its country: the IBAN registry of SWIFT.
_IBAN_LENGTHS = {
    country: int(length)
    for length, countries in (
        line.split(maxsplit=1)
        for line in (
            "15 NO",
            "16 BE",
            "18 DK FI FO GL NL SD FK",
            "19 MK SI",
            "20 AT BA EE KZ LT LU XK MN",
            "21 CH CR HR LI LV",
            "22 BG BH DE GB GE IE ME RS VA",
            "23 AE GI IL IQ OM SO TL",
            "24 AD CZ ES MD PK RO SA SE SK TN VG",
            "25 LY PT ST",
            "26 IS TR",
            "27 BI DJ FR GR IT MC MR SM",
            "28 AL AZ BY CY DO GT HU LB NI PL SV",
            "29 BR EG PS QA UA",
            "30 JO KW MU YE",
            "31 MT SC",
            "32 LC",
            "33 RU",
        )
    )
    for country in countries.split()
}


def is_iban(text: str) -> bool:
    """Whether a text begins with an account number whose check digits are right: ISO 13616."""
    number = text.replace(" ", "")
    length = _IBAN_LENGTHS.get(number[:2])
    if length is None or len(number) < length:
        return False
    number = number[:length]
    return int("".join(str(int(each, 36)) for each in number[4:] + number[:4])) % 97 == 1


def holds_iban(text: str) -> bool:
    """Whether an account number begins at one of the words of a text."""
    return any(is_iban(text[found.start() :]) for found in re.finditer(r"\b[A-Z]{2}[0-9]{2}", text))


def shape(text: str) -> str:
    """What a text looks like without what it says: ``xxxx@xxx.xx``, at most 40 characters."""
    shown = re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "9", text.strip()))
    return shown if len(shown) <= 40 else f"{shown[:39]}…"


def _domain(table: Table, column: str) -> str:
    """The domain of a column that names none: its own, shared with no other."""
    return f"{table.label}.{_part(column)}"


def _part(name: str) -> str:
    """One part of a table's label; quoted as in SQL where a dot or a quote would mislead."""
    return '"' + name.replace('"', '""') + '"' if re.search(r'[."]', name) or not name else name
