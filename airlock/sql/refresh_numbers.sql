-- One row. New rows are numbered after all that were carried. The fence leaps: whoever drew one in
-- the old database after it was read must not meet the same number here.
SELECT
    pg_catalog.setval(pg_catalog.pg_get_serial_sequence('airlock.deploy', 'id'),
        greatest((SELECT pg_catalog.max(d.id) FROM airlock.deploy AS d), 1)),
    pg_catalog.setval(pg_catalog.pg_get_serial_sequence('airlock.alert', 'id'),
        coalesce((SELECT pg_catalog.max(a.id) FROM airlock.alert AS a), 1),
        EXISTS (SELECT FROM airlock.alert)),
    pg_catalog.setval('airlock.fence', $1::bigint + 1000)
