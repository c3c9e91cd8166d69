"""Deals, alerts and halts in PostgreSQL.

Columns are named, never ``*``: the same code runs on the schema before a migration and after it.
"""
# ruff: noqa: S608 - what is put into the queries are the lists of columns below

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg

log = logging.getLogger(__name__)

COMMAND_TIMEOUT_S = 10
HEALTH_TIMEOUT_S = 2

DEAL = """
    id, acquirer_name, target_name, target_ticker, status::text AS status, deal_value_usd,
    offer_price, currency, announced_on, expected_close_on, details, source_id,
    created_at, updated_at"""
ALERT = """
    id, deal_id, rule_id, severity::text AS severity, message, payload, delivered_at,
    acknowledged_at, created_at"""
HALT = """
    id, ticker, code::text AS code, halted_at, resumed_at, exchange, note, created_at, updated_at"""


class Store:
    """What the routes may ask of the database."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: asyncpg.Pool[asyncpg.Record]

    async def open(self) -> None:
        """Connect, if the database answers. If not, the service says so in /health and waits."""
        self._pool = asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=8,
            command_timeout=COMMAND_TIMEOUT_S,
            # Prepared statements outlive a migration that changes what they return, and then fail
            # with "cached plan must not change result type". Without the cache each statement is
            # parsed afresh, which costs a fraction of a millisecond.
            statement_cache_size=0,
            server_settings={"application_name": "ma-tracker"},
        )
        await self._pool
        try:
            async with self._pool.acquire(timeout=HEALTH_TIMEOUT_S):
                pass
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.error("the database does not answer: %s", error or type(error).__name__)

    async def close(self) -> None:
        try:
            await self._pool.close()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._pool.terminate()

    async def schema_version(self) -> int | None:
        """The highest migration in Airlock's ledger; None where there is no ledger to read."""
        async with self._pool.acquire(timeout=HEALTH_TIMEOUT_S) as conn:
            await conn.execute("SELECT 1", timeout=HEALTH_TIMEOUT_S)
            try:
                return await conn.fetchval(
                    "SELECT max(version) FROM airlock.migration "
                    "WHERE state IN ('applied', 'adopted')",
                    timeout=HEALTH_TIMEOUT_S,
                )
            # No such table, or not ours to read.
            except asyncpg.SyntaxOrAccessError:
                return None

    async def deals(self, limit: int) -> list[dict[str, Any]]:
        return await self._rows(
            f"SELECT {DEAL} FROM deals ORDER BY created_at DESC LIMIT $1", limit
        )

    async def deal(self, key: UUID) -> dict[str, Any] | None:
        return await self._row(f"SELECT {DEAL} FROM deals WHERE id = $1", key)

    async def add_deal(self, new: Mapping[str, Any]) -> dict[str, Any] | None:
        return await self._row(
            f"""
            INSERT INTO deals (
                acquirer_name, target_name, target_ticker, status, deal_value_usd, offer_price,
                currency, announced_on, expected_close_on, details, source_id
            )
            VALUES ($1, $2, $3, $4::text::deal_status, $5, $6, $7, $8, $9, $10, $11)
            RETURNING {DEAL}
            """,
            new["acquirer_name"],
            new["target_name"],
            new["target_ticker"],
            new["status"],
            new["deal_value_usd"],
            new["offer_price"],
            new["currency"],
            new["announced_on"],
            new["expected_close_on"],
            json.dumps(new["details"]),
            new["source_id"],
        )

    async def change_deal(
        self,
        key: UUID,
        *,
        status: str | None,
        offer_price: Decimal | None,
        expected_close_on: date | None,
    ) -> dict[str, Any] | None:
        """The deal after the change. None leaves a value as it is."""
        return await self._row(
            f"""
            UPDATE deals
            SET status = COALESCE($2::text::deal_status, status),
                offer_price = COALESCE($3, offer_price),
                expected_close_on = COALESCE($4, expected_close_on),
                updated_at = now()
            WHERE id = $1
            RETURNING {DEAL}
            """,
            key,
            status,
            offer_price,
            expected_close_on,
        )

    async def alerts(self, limit: int) -> list[dict[str, Any]]:
        return await self._rows(
            f"SELECT {ALERT} FROM alerts ORDER BY created_at DESC LIMIT $1", limit
        )

    async def add_alert(
        self, *, deal_id: UUID, severity: str, message: str, payload: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        return await self._row(
            f"""
            INSERT INTO alerts (deal_id, severity, message, payload)
            VALUES ($1, $2::text::alert_severity, $3, $4)
            RETURNING {ALERT}
            """,
            deal_id,
            severity,
            message,
            json.dumps(payload),
        )

    async def halts(self, limit: int) -> list[dict[str, Any]]:
        return await self._rows(
            f"SELECT {HALT} FROM trading_halts ORDER BY halted_at DESC LIMIT $1", limit
        )

    async def add_halt(
        self,
        *,
        ticker: str,
        code: str,
        halted_at: datetime,
        resumed_at: datetime | None,
        exchange: str | None,
        note: str | None,
    ) -> dict[str, Any] | None:
        """The halt; the deals of its ticker remember when it was."""
        return await self._row(
            f"""
            WITH touched AS (
                UPDATE deals SET last_halt_at = GREATEST(last_halt_at, $3)
                WHERE target_ticker = $1
            )
            INSERT INTO trading_halts (ticker, code, halted_at, resumed_at, exchange, note)
            VALUES ($1, $2::text::halt_code, $3, $4, $5, $6)
            RETURNING {HALT}
            """,
            ticker,
            code,
            halted_at,
            resumed_at,
            exchange,
            note,
        )

    async def _rows(self, query: str, *args: Any) -> list[dict[str, Any]]:
        return [_plain(row) for row in await self._pool.fetch(query, *args)]

    async def _row(self, query: str, *args: Any) -> dict[str, Any] | None:
        row = await self._pool.fetchrow(query, *args)
        return None if row is None else _plain(row)


def _plain(row: asyncpg.Record) -> dict[str, Any]:
    """A row as JSON knows it: money as text, so that no digit is lost; jsonb as an object."""
    values = dict(row)
    for name, value in values.items():
        if isinstance(value, Decimal):
            values[name] = str(value)
        elif name in ("details", "payload"):
            values[name] = json.loads(value)
    return values
