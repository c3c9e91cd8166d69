-- One migration that came with a copy. Its rows were written by one transaction, this one or an
-- earlier one, whatever the numbers were at the source.
INSERT INTO airlock.migration
    (deploy, version, name, checksum, forward_sql, reverse_sql, state, position, segments_done,
     applied_at, applied_xid, oldest_xid)
VALUES ($1, $2, $3, $4, $5, $6, 'adopted', $7, $8, $9,
    pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint,
    pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::pg_catalog.text::bigint)
ON CONFLICT (deploy, version) DO NOTHING
