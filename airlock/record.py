"""Frozen plain data to JSON and back, as the ledger stores it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError

from airlock.errors import Unreadable

T = TypeVar("T")
Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"

# PostgreSQL takes no NUL in text, and nothing in UTF-8 is half of a surrogate pair.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def storable(text: str) -> str:
    """The text with U+FFFD for each character that PostgreSQL cannot store."""
    return _UNSTORABLE.sub("\ufffd", text)


def dump(value: object) -> str:
    """A dataclass as JSON text that PostgreSQL can store."""
    plain = _adapter(type(value)).dump_python(value, mode="json")
    return json.dumps(_storable(plain), ensure_ascii=False)


def _storable(plain: Plain) -> Plain:
    if isinstance(plain, str):
        return storable(plain)
    if isinstance(plain, dict):
        return {storable(name): _storable(each) for name, each in plain.items()}
    return [_storable(each) for each in plain] if isinstance(plain, list) else plain


def load(kind: type[T], text: str | bytes) -> T:
    """The dataclass that ``dump`` wrote. Raises Unreadable for anything else."""
    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        raise unreadable(f"a {kind.__name__}", error) from error


def row(kind: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass of a row of the ledger. Raises Unreadable where a value is none of its own."""
    try:
        return _adapter(kind).validate_python(dict(values))
    except ValidationError as error:
        number = values.get("id", values.get("deploy"))
        whose = f" of deploy {number}" if number is not None else ""
        raise unreadable(f"a row of {kind.__name__}{whose}", error) from error


def unreadable(what: str, error: ValidationError) -> Unreadable:
    """The error that says which fields are not as expected, without what is in them."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    said = [f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in found[:3]]
    return Unreadable(f"The ledger has {what} that cannot be read: {'; '.join(said)}")
