"""Frozen plain data to JSON and back, as the ledger stores it."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, TypeAlias, TypeVar

from pydantic import TypeAdapter

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
    """The dataclass that ``dump`` wrote."""
    return _adapter(kind).validate_json(text)
