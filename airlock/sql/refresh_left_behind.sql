-- A row is one kind of object that is not carried into the copy, and how many of it there are. What
-- belongs to an extension comes with the extension.
SELECT o.kind, pg_catalog.count(*) AS number
FROM (
    SELECT 'large objects' AS kind FROM pg_catalog.pg_largeobject_metadata
    UNION ALL
    SELECT 'publications' FROM pg_catalog.pg_publication
    UNION ALL
    SELECT 'subscriptions' FROM pg_catalog.pg_subscription AS s
    WHERE s.subdbid = (SELECT d.oid FROM pg_catalog.pg_database AS d
                       WHERE d.datname = pg_catalog.current_database())
    UNION ALL
    SELECT 'user mappings' FROM pg_catalog.pg_user_mappings
    UNION ALL
    SELECT 'event triggers' FROM pg_catalog.pg_event_trigger AS e
    WHERE NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend AS x
        WHERE x.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass
          AND x.objid = e.oid AND x.deptype = 'e')
) AS o
GROUP BY o.kind
ORDER BY o.kind
