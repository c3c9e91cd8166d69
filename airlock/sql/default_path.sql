-- One JSON array: the schemas of the session's path that are there. Text, as in named.sql.
SELECT pg_catalog.to_json(pg_catalog.current_schemas(false))::pg_catalog.text
