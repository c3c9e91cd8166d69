"""Data for the M&A Tracker: the same rows for the same seed.

Made inside the server from numbers, since no client is as fast. A row's key is a hash of its
table, its number and the seed, so that a child knows its parent's key without looking it up.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg

SECTORS = ["Bio", "Energy", "Data", "Steel", "Media", "Water", "Rail", "Health", "Cloud", "Grain"]
FORMS = ["Corp", "Holdings", "Group", "Partners", "Systems", "Industries", "Labs", "Resources"]
PLACES = ["Northern", "Pacific", "Summit", "Harbor", "Granite", "Cedar", "Lakeside", "Crown"]
SENTENCES = [
    "The boards of both companies have approved the transaction unanimously. ",
    "Closing is subject to regulatory approval and to a vote of the shareholders. ",
    "The buyer expects savings from the second year on and has committed financing in place. ",
    "A competing bid was not ruled out by people familiar with the matter. ",
    "The regulator has asked for more information and extended its review. ",
    "Shareholders who hold about a third of the votes have agreed to the offer. ",
    "The target may solicit other offers for forty-five days. ",
    "A termination fee of three per cent is due if the financing fails. ",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """How many rows of each table were written."""

    sources: int
    monitor_runs: int
    tickers: int
    deals: int
    intelligence: int
    history: int
    research: int
    alerts: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


async def load(
    conn: asyncpg.Connection[Any], deals: int = 40_000, *, seed: int = 1, body_bytes: int = 120
) -> Loaded:
    """Fill an empty schema 009 or 010; about five rows for each deal, in one transaction.

    deals: 40,000 make more than 200,000 rows.
    body_bytes: text of each item of intelligence, of which a deal has two. With 1,500 a deal
        takes 5 kB, so that 300,000 deals make a database of 1.5 GB; 1,700 is the most that is
        stored uncompressed.
    """
    counts = Loaded(
        sources=max(20, deals // 200),
        monitor_runs=deals,
        tickers=max(20, deals // 10),
        deals=deals,
        intelligence=deals * 2,
        history=deals // 2,
        research=deals // 10,
        alerts=deals // 2,
    )
    async with conn.transaction():
        await _functions(conn)
        await _sources(conn, seed, counts)
        await _tickers(conn, seed, counts)
        await _deals(conn, seed, counts)
        await _intelligence(conn, seed, counts, body_bytes)
        await _history(conn, seed, counts)
        await _research(conn, seed, counts)
        await _alerts(conn, seed, counts)
        await conn.execute("DROP FUNCTION pg_temp.key_of(text, bigint, bigint)")
        await conn.execute("DROP FUNCTION pg_temp.pick(text[], bigint)")
    await conn.execute("ANALYZE")
    return counts


async def load_duplicate_sources(
    conn: asyncpg.Connection[Any], places: int = 50, *, seed: int = 1
) -> int:
    """Fill an empty schema 005 with sources of which most stand there two to four times.

    Each source, duplicate or not, has a monitor, a deal and two items of intelligence.
    Returns how many of the sources are duplicates.
    """
    async with conn.transaction():
        await _functions(conn)
        await conn.execute(
            """
            INSERT INTO sources (id, name, url, kind, metadata, created_at, updated_at)
            SELECT pg_temp.key_of('source', n * 4 + copy, $2::bigint),
                format('Wire %s', n),
                (ARRAY[
                    'https://www.wire-%s.example/deals', 'http://Wire-%s.example/deals/',
                    'HTTPS://wire-%s.EXAMPLE/deals#top', ' www.wire-%s.example/deals//'
                ])[1 + copy]::text,
                'news', jsonb_build_object('copy', copy),
                '2025-01-01'::timestamptz + n * interval '1 hour' + copy * interval '1 minute',
                '2025-02-01'::timestamptz
            FROM generate_series(1, $1::bigint) AS n, generate_series(0, 3) AS copy
            WHERE copy <= n % 4
            """,
            places,
            seed,
        )
        await conn.execute("UPDATE sources SET url = format(url, substring(name FROM 6))")
        await conn.execute(
            """
            INSERT INTO source_monitors (id, source_id, name, created_at, updated_at)
            SELECT md5('monitor' || s.id)::uuid, s.id, 'All items', s.created_at, s.created_at
            FROM sources s ORDER BY s.id
            """
        )
        await conn.execute(
            """
            INSERT INTO deals (
                id, acquirer_name, target_name, announced_on, source_id, created_at, updated_at
            )
            SELECT md5('deal' || s.id)::uuid, 'Crown Holdings', s.name || ' Labs', '2025-03-01',
                s.id, s.created_at, s.created_at
            FROM sources s ORDER BY s.id
            """
        )
        await conn.execute(
            """
            INSERT INTO deal_intelligence (
                deal_id, source_id, kind, headline, published_at, created_at
            )
            SELECT md5('deal' || s.id)::uuid, s.id, 'rumour', s.name || ' says so',
                s.created_at, s.created_at
            FROM sources s, generate_series(1, 2) ORDER BY s.id
            """
        )
        duplicates: int = await conn.fetchval("SELECT count(*) - $1 FROM sources", places)
        await conn.execute("DROP FUNCTION pg_temp.key_of(text, bigint, bigint)")
        await conn.execute("DROP FUNCTION pg_temp.pick(text[], bigint)")
    return duplicates


async def _functions(conn: asyncpg.Connection[Any]) -> None:
    await conn.execute(
        """
        CREATE FUNCTION pg_temp.key_of(of_table text, n bigint, seed bigint) RETURNS uuid
        LANGUAGE sql STABLE AS $$ SELECT md5(of_table || n || '/' || seed)::uuid $$;
        CREATE FUNCTION pg_temp.pick(words text[], n bigint) RETURNS text
        LANGUAGE sql STABLE AS $$ SELECT words[1 + n % cardinality(words)] $$;
        """
    )


async def _sources(conn: asyncpg.Connection[Any], seed: int, counts: Loaded) -> None:
    await conn.execute(
        """
        INSERT INTO sources (id, name, url, kind, metadata, created_at, updated_at)
        SELECT pg_temp.key_of('source', n, $2::bigint), format('Wire %s', n),
            format('https://www.wire-%s.example/deals', n),
            pg_temp.pick(ARRAY['news', 'filing', 'press_release', 'exchange', 'blog'], n),
            jsonb_build_object('language', 'en', 'region', n % 7),
            '2025-01-01'::timestamptz + n * interval '1 hour',
            '2025-01-01'::timestamptz + n * interval '1 hour'
        FROM generate_series(1, $1::bigint) AS n
        """,
        counts.sources,
        seed,
    )
    await conn.execute(
        """
        INSERT INTO source_monitors (id, source_id, name, poll_interval_s, settings)
        SELECT pg_temp.key_of('monitor', n, $2::bigint), pg_temp.key_of('source', n, $2::bigint),
            'All items', 60 + n % 600, '{"selector": "article h2"}'
        FROM generate_series(1, $1::bigint) AS n
        """,
        counts.sources,
        seed,
    )
    await conn.execute(
        """
        INSERT INTO source_monitor_runs (monitor_id, started_at, finished_at, items_found)
        SELECT pg_temp.key_of('monitor', 1 + n % $3::bigint, $2::bigint), at,
            at + n % 20 * interval '1 second', n % 9
        FROM (
            SELECT n, '2025-01-01'::timestamptz + n * interval '1 minute' AS at
            FROM generate_series(1, $1::bigint) AS n
        ) AS numbered
        """,
        counts.monitor_runs,
        seed,
        counts.sources,
    )


async def _tickers(conn: asyncpg.Connection[Any], seed: int, counts: Loaded) -> None:
    await conn.execute(
        """
        INSERT INTO tickers (symbol, company_name, exchange, cik, listed_on)
        SELECT format('T%s', n),
            concat_ws(
                ' ', pg_temp.pick($3, n + $2), pg_temp.pick($4, n / 8), pg_temp.pick($5, n / 80)
            ),
            pg_temp.pick(ARRAY['NASDAQ', 'NYSE', 'AMEX'], n), (100000 + n)::text,
            '1990-01-01'::date + (n * 37 % 12000)::int
        FROM generate_series(1, $1::bigint) AS n
        """,
        counts.tickers,
        seed,
        PLACES,
        SECTORS,
        FORMS,
    )


async def _deals(conn: asyncpg.Connection[Any], seed: int, counts: Loaded) -> None:
    await conn.execute(
        """
        INSERT INTO deals (
            id, acquirer_name, target_name, target_ticker, acquirer_ticker, status,
            deal_value_usd, offer_price, announced_on, expected_close_on, details, source_id,
            stage, in_production_since, created_at, updated_at
        )
        SELECT pg_temp.key_of('deal', n, $2::bigint),
            concat_ws(' ', pg_temp.pick($5, n), pg_temp.pick($6, n / 3), pg_temp.pick($7, n / 7)),
            concat_ws(' ', pg_temp.pick($5, n / 5), pg_temp.pick($6, n / 11), pg_temp.pick($7, n)),
            CASE WHEN n % 4 > 0 THEN format('T%s', 1 + (n * 31 + $2::bigint) % $4::bigint) END,
            CASE WHEN n % 3 = 0 THEN format('T%s', 1 + n * 17 % $4::bigint) END,
            pg_temp.pick(
                ARRAY['rumoured', 'announced', 'pending', 'completed', 'completed', 'terminated'], n
            )::deal_status,
            1000000 * (5 + n * 7919 % 40000), 5 + (n * 104729 % 30000) / 100.0,
            day, day + 30 + (n % 400)::int,
            jsonb_build_object(
                'consideration', pg_temp.pick(ARRAY['cash', 'stock', 'mixed'], n),
                'premium', n % 60, 'advisers', jsonb_build_array('A' || n % 40, 'B' || n % 25)
            ),
            pg_temp.key_of('source', 1 + n % $3::bigint, $2::bigint),
            CASE WHEN n % 5 = 0 THEN 'production' ELSE 'candidate' END::deal_stage,
            CASE WHEN n % 5 = 0 THEN day + interval '1 day' END,
            day + n % 86400 * interval '1 second', day + n % 86400 * interval '1 second'
        FROM (
            SELECT n, '2023-01-01'::date + (n * 13 % 900)::int AS day
            FROM generate_series(1, $1::bigint) AS n
        ) AS numbered
        """,
        counts.deals,
        seed,
        counts.sources,
        counts.tickers,
        PLACES,
        SECTORS,
        FORMS,
    )


async def _intelligence(
    conn: asyncpg.Connection[Any], seed: int, counts: Loaded, body_bytes: int
) -> None:
    # A row below 2 kB is stored as it is, neither compressed nor elsewhere.
    repeats = 1 + body_bytes // sum(map(len, SENTENCES))
    paragraphs = ["".join(SENTENCES[n:] + SENTENCES[:n]) * repeats for n in range(len(SENTENCES))]
    await conn.execute(
        """
        INSERT INTO deal_intelligence (
            deal_id, source_id, kind, headline, body, payload, confidence, published_at, created_at
        )
        SELECT deal_id, pg_temp.key_of('source', 1 + n * 7 % $3::bigint, $2::bigint),
            pg_temp.pick(
                ARRAY['rumour', 'announcement', 'filing', 'regulatory', 'shareholder_vote'], n
            )::intelligence_kind,
            format('Item %s about deal %s', n, 1 + n / 2),
            left(md5(n::text) || ' ' || pg_temp.pick($4, n), $5::int),
            jsonb_build_object('price', n * 31 % 300, 'regulator', n % 12),
            (n % 1000) / 1000.0, at, at
        FROM (
            SELECT n, pg_temp.key_of('deal', 1 + n / 2, $2::bigint) AS deal_id,
                '2023-01-01'::timestamptz + n % 78000000 * interval '1 second' AS at
            FROM generate_series(0, $1::bigint - 1) AS n
        ) AS numbered
        """,
        counts.intelligence,
        seed,
        counts.sources,
        paragraphs,
        body_bytes,
        timeout=3600,
    )


async def _history(conn: asyncpg.Connection[Any], seed: int, counts: Loaded) -> None:
    await conn.execute(
        """
        INSERT INTO deal_history (
            deal_id, old_status, new_status, old_offer_price, new_offer_price, changed_at
        )
        SELECT pg_temp.key_of('deal', n * 2, $2::bigint), 'rumoured', 'announced', 10 + n % 90,
            11 + n % 90, '2024-01-01'::timestamptz + n * interval '1 minute'
        FROM generate_series(1, $1::bigint) AS n
        """,
        counts.history,
        seed,
    )


async def _research(conn: asyncpg.Connection[Any], seed: int, counts: Loaded) -> None:
    await conn.execute(
        """
        INSERT INTO deal_research (
            id, deal_id, analyst, title, summary, findings, close_probability, created_at,
            updated_at
        )
        SELECT pg_temp.key_of('research', n, $2::bigint),
            pg_temp.key_of('deal', n * 10, $2::bigint),
            'analyst ' || n % 30, format('Note %s', n), pg_temp.pick($3, n),
            jsonb_build_object('spread', n % 40, 'rating', n % 5), (n % 1000) / 1000.0, at, at
        FROM (
            SELECT n, '2024-01-01'::timestamptz + n * interval '1 minute' AS at
            FROM generate_series(1, $1::bigint) AS n
        ) AS numbered
        """,
        counts.research,
        seed,
        SENTENCES,
    )


async def _alerts(conn: asyncpg.Connection[Any], seed: int, counts: Loaded) -> None:
    await conn.execute(
        """
        INSERT INTO alert_rules (id, name, condition, severity, channel)
        SELECT pg_temp.key_of('rule', n, $1::bigint), format('Rule %s', n),
            jsonb_build_object('premium_above', n * 5), 'info',
            pg_temp.pick(ARRAY['email', 'slack', 'sms', 'webhook'], n)
        FROM generate_series(1, 20) AS n
        """,
        seed,
    )
    await conn.execute(
        """
        INSERT INTO alerts (
            id, deal_id, rule_id, severity, message, payload, delivered_at, created_at
        )
        SELECT pg_temp.key_of('alert', n, $2::bigint), pg_temp.key_of('deal', n * 2, $2::bigint),
            pg_temp.key_of('rule', 1 + n % 20, $2::bigint),
            pg_temp.pick(ARRAY['info', 'warning', 'critical'], n)::alert_severity,
            format('Deal %s: the premium has changed', n * 2),
            jsonb_build_object('premium', n % 60),
            at, at
        FROM (
            SELECT n, '2024-06-01'::timestamptz + n * interval '1 minute' AS at
            FROM generate_series(1, $1::bigint) AS n
        ) AS numbered
        """,
        counts.alerts,
        seed,
    )
