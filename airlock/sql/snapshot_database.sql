-- One row: the properties of the current database that a plain dump does not carry. The locale
-- columns differ between versions, hence the detour over JSON.
-- https://www.postgresql.org/docs/current/catalog-pg-database.html
SELECT
    d.datname::pg_catalog.text AS name,
    pg_catalog.pg_get_userbyid(d.datdba)::pg_catalog.text AS owner,
    pg_catalog.pg_encoding_to_char(d.encoding)::pg_catalog.text AS encoding,
    d.datcollate::pg_catalog.text AS lc_collate,
    d.datctype::pg_catalog.text AS lc_ctype,
    coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') AS locale_provider,
    coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale',
             pg_catalog.to_jsonb(d) ->> 'daticulocale') AS locale,
    pg_catalog.shobj_description(d.oid, 'pg_database') AS comment,
    d.datacl IS NOT NULL AS has_grants
FROM pg_catalog.pg_database AS d
WHERE d.datname = pg_catalog.current_database()
