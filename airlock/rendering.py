"""PostgreSQL's own rendering of an expression, as a dump and a restore would leave it.

PostgreSQL writes an expression from its tree, and reading what it wrote can give another tree. Two
forms are known, and both settle after one round:

- ``a IN ('x', 'y')`` on a varchar casts the array, and comes back casting each element;
- ``(a OR b) OR c``, as BETWEEN and row comparisons give it, comes back as ``a OR b OR c``.

A database that was once restored shows the second form of each, its twin that never was the first.
A catalogue holds the second, so that a copy equals its original.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|[()\[\],]|\ OR\ |\ AND\ |"""
    r"""[^'"()\[\],\ ]+|.""",
    re.DOTALL | re.VERBOSE,
)
_ARRAY_CAST = re.compile(
    r"::((?:[\w.]|\"(?:[^\"]|\"\")*\")(?:[\w. ]|\"(?:[^\"]|\"\")*\")*(?:\([\d,]+\))?)\[\]"
)
_NEEDS_WORK = re.compile(r"\(ARRAY\[|\)\) (?:OR|AND) ")


def settled(text: str) -> str:
    """The rendering after one dump and restore; most texts are settled already."""
    if not _NEEDS_WORK.search(text):
        return text
    tokens = _TOKEN.findall(_with_element_casts(text))
    return _Group.read(tokens, [0]).render()


def _with_element_casts(text: str) -> str:
    """``(ARRAY[a, b])::text[]`` as ``ARRAY[(a)::text, (b)::text]``."""
    start = text.rfind("(ARRAY[")
    while start >= 0:
        elements, end = _elements(text, start + len("(ARRAY["))
        cast = _ARRAY_CAST.match(text, end + 1) if text[end : end + 1] == ")" else None
        if cast:
            inner = ", ".join(f"({element})::{cast[1]}" for element in elements)
            text = f"{text[:start]}ARRAY[{inner}]{text[cast.end() :]}"
        start = text.rfind("(ARRAY[", 0, start)
    return text


def _elements(text: str, start: int) -> tuple[list[str], int]:
    """The elements of an array up to its closing bracket, and the place behind that."""
    elements, depth = [""], 0
    for match in _TOKEN.finditer(text, start):
        piece = match[0]
        if piece == "]" and depth == 0:
            return [element.strip() for element in elements], match.end()
        depth += (piece in "([") - (piece in ")]") if len(piece) == 1 else 0
        if piece == "," and depth == 0:
            elements.append("")
        else:
            elements[-1] += piece
    return elements, len(text)


@dataclass(slots=True)
class _Group:
    """What stands between two parentheses: operands, and the AND or OR between them."""

    operands: list[list[str | _Group]] = field(default_factory=lambda: [[]])
    connectives: list[str] = field(default_factory=list[str])

    @classmethod
    def read(cls, tokens: list[str], place: list[int]) -> _Group:
        group = cls()
        while place[0] < len(tokens):
            piece = tokens[place[0]]
            place[0] += 1
            if piece == "(":
                group.operands[-1].append(cls.read(tokens, place))
            elif piece == ")":
                break
            elif piece in (" OR ", " AND "):
                group.connectives.append(piece)
                group.operands.append([])
            else:
                group.operands[-1].append(piece)
        return group.flattened()

    def flattened(self) -> _Group:
        """The first operand's own operands in its place, where the same word joins both."""
        first = self.operands[0]
        inner = first[0] if len(first) == 1 else None
        if (
            isinstance(inner, _Group)
            and inner.connectives
            and len({*self.connectives, *inner.connectives}) == 1
            and self.connectives
        ):
            self.operands[:1] = inner.operands
            self.connectives[:0] = inner.connectives
        return self

    def render(self) -> str:
        parts = [
            "".join(part if isinstance(part, str) else f"({part.render()})" for part in operand)
            for operand in self.operands
        ]
        joined = [
            text for pair in zip(["", *self.connectives], parts, strict=True) for text in pair
        ]
        return "".join(joined)
