-- A row is a table or sequence of schema airlock, with its kind; but for the numbers of the journal, in
-- which we write ourselves.
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, c.relkind::pg_catalog.text AS kind
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'airlock' AND c.relkind IN ('r', 'S')
AND c.relname <> 'event_sequence_seq'
ORDER BY c.relname
