"""Text of others, as it may be shown: what a terminal or a browser would obey can be seen instead.

Escape sequences move the cursor, rename windows and hide lines; directions of writing turn a line
around, so that it reads as something else than what is run (CVE-2021-42574). They are written as
JSON writes them, which leaves JSON the same.
"""

from __future__ import annotations

import re

# The control characters but tab and the end of a line; marks and changes of direction; U+2028 and
# U+2029, which some programs take for the end of a line.
_OBEYED = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|\r(?!\n)"
)


def visible(text: str) -> str:
    r"""The text with ``\u001b`` and the like for each character that would be obeyed."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
