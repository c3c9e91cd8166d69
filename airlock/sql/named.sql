-- One row per name in the JSON array $1, in its order: the relation's OID, or NULL. The path is that of
-- whoever wrote the names: no operator, and no type that the driver would have to ask about.
SELECT pg_catalog.to_regclass(n.name)::pg_catalog.oid AS oid
FROM pg_catalog.json_array_elements_text($1::pg_catalog.text::pg_catalog.json)
    WITH ORDINALITY AS n (name, place)
ORDER BY n.place
