--# grant-to-public
--bad
GRANT SELECT ON deals TO PUBLIC;
--bad
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC;
--good
GRANT SELECT ON deals TO app_reader;
--good
REVOKE ALL ON deals FROM PUBLIC;

--# grant-all
--bad
GRANT ALL PRIVILEGES ON deals TO app;
--good
GRANT SELECT, INSERT ON deals TO app;

--# grant-option
--bad
GRANT SELECT ON deals TO app WITH GRANT OPTION;
--bad
GRANT readers TO app WITH ADMIN OPTION;
--good
GRANT readers TO app;

--# security-definer-search-path
--bad
CREATE FUNCTION crm.total(d bigint) RETURNS numeric LANGUAGE sql SECURITY DEFINER
    AS $$ SELECT sum(price) FROM deals WHERE id = d $$;
--bad
ALTER FUNCTION crm.total(bigint) SECURITY DEFINER;
--good
CREATE FUNCTION crm.total(d bigint) RETURNS numeric LANGUAGE sql SECURITY DEFINER
    SET search_path = crm, pg_temp
    AS $$ SELECT sum(price) FROM deals WHERE id = d $$;
--good
CREATE FUNCTION crm.total(d bigint) RETURNS numeric LANGUAGE sql
    AS $$ SELECT sum(price) FROM deals WHERE id = d $$;
--good
CREATE FUNCTION crm.total(d bigint) RETURNS numeric LANGUAGE sql SECURITY DEFINER
    AS $$ SELECT sum(price) FROM deals WHERE id = d $$;
ALTER FUNCTION crm.total SET search_path = pg_catalog, pg_temp;
