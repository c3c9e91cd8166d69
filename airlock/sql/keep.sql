-- Copies the rows of one table that were written since migration $2 of deploy $1 and hold data.
-- Written since: by no older transaction than the oldest that ran when the migration was applied,
-- and not by the migration itself. Too many rows at worst (a frozen row's age means nothing any
-- more), never too few. Nor by the backfills $4, which alone say what is in these columns.
-- https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND
INSERT INTO airlock.kept (deploy, version, relation, row_data)
SELECT m.deploy, m.version, $3::pg_catalog.text, pg_catalog.to_jsonb(t)
FROM airlock.migration AS m
CROSS JOIN ONLY {relation} AS t
WHERE m.deploy = $1::bigint AND m.version = $2::bigint
AND pg_catalog.age(t.xmin) <= pg_catalog.age((m.oldest_xid % 4294967296)::pg_catalog.text::pg_catalog.xid)
AND t.xmin::pg_catalog.text <> (m.applied_xid % 4294967296)::pg_catalog.text
AND NOT EXISTS (
    SELECT FROM airlock.backfill_batch AS b
    WHERE b.deploy = m.deploy AND b.version = ANY ($4::bigint[])
    AND (b.xid % 4294967296)::pg_catalog.text = t.xmin::pg_catalog.text
)
AND {holds_data}
