-- A row is one object of schema airlock with what defines it, but for the rights to read. Comments and
-- statistics are not among it.
SELECT 'schema airlock' AS name,
    pg_catalog.concat(pg_catalog.pg_get_userbyid(n.nspowner), ' ', (
        SELECT pg_catalog.string_agg(a::pg_catalog.text, ' ' ORDER BY a::pg_catalog.text)
        FROM pg_catalog.aclexplode(
            COALESCE(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) AS a WHERE a.privilege_type <> 'USAGE')) AS definition
FROM pg_catalog.pg_namespace AS n
WHERE n.nspname = 'airlock'
UNION ALL
SELECT pg_catalog.format('airlock.%I', c.relname),
    pg_catalog.concat_ws(' ', CASE WHEN c.relkind <> 'i' THEN c.oid END, c.relkind, pg_catalog.pg_get_userbyid(c.relowner),
        c.relpersistence, c.relrowsecurity, c.relforcerowsecurity, c.reloptions, c.relreplident,
        CASE WHEN c.relkind = 'i' THEN pg_catalog.pg_get_indexdef(c.oid) END, (
            SELECT pg_catalog.string_agg(a::pg_catalog.text, ' ' ORDER BY a::pg_catalog.text)
            FROM pg_catalog.aclexplode(COALESCE(c.relacl, pg_catalog.acldefault(
                CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::pg_catalog."char", c.relowner))) AS a WHERE a.privilege_type <> 'SELECT'), (
            SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attname, a.atttypid, a.atttypmod,
                a.attnotnull, a.attidentity, a.attgenerated, a.attisdropped,
                pg_catalog.pg_get_expr(d.adbin, d.adrelid)), ', ' ORDER BY a.attnum)
            FROM pg_catalog.pg_attribute AS a
            LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
            WHERE a.attrelid = c.oid AND a.attnum > 0), (
            SELECT pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(k.oid), ', ' ORDER BY k.oid)
            FROM pg_catalog.pg_constraint AS k WHERE c.oid IN (k.conrelid, k.confrelid)), (
            SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', t.oid, t.tgenabled), ' ' ORDER BY t.oid)
            FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = c.oid), (
            SELECT pg_catalog.string_agg(r.oid::pg_catalog.text, ' ' ORDER BY r.oid)
            FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = c.oid), (
            SELECT pg_catalog.string_agg(p.oid::pg_catalog.text, ' ' ORDER BY p.oid)
            FROM pg_catalog.pg_policy AS p WHERE p.polrelid = c.oid), (
            SELECT pg_catalog.string_agg(h.inhrelid::pg_catalog.text, ' ' ORDER BY h.inhrelid)
            FROM pg_catalog.pg_inherits AS h WHERE c.oid IN (h.inhparent, h.inhrelid)), (
            SELECT pg_catalog.string_agg(p.prpubid::pg_catalog.text, ' ' ORDER BY p.prpubid)
            FROM pg_catalog.pg_publication_rel AS p WHERE p.prrelid = c.oid))
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'airlock'
UNION ALL
SELECT pg_catalog.format('airlock.%I', p.proname), p.oid::pg_catalog.text
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = 'airlock'
UNION ALL
SELECT pg_catalog.format('airlock.%I', t.typname), t.oid::pg_catalog.text
FROM pg_catalog.pg_type AS t
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
WHERE n.nspname = 'airlock' AND t.typtype NOT IN ('c', 'b')
UNION ALL
SELECT 'default privileges in schema airlock', d.oid::pg_catalog.text
FROM pg_catalog.pg_default_acl AS d
JOIN pg_catalog.pg_namespace AS n ON n.oid = d.defaclnamespace
WHERE n.nspname = 'airlock'
