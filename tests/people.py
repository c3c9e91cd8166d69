"""Sessions of the people and services of a test, with what their roles and databases give."""

from __future__ import annotations

from functools import partial

from airlock import postgres

connect = partial(postgres.connect, pinned=False)
