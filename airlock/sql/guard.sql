-- One row: a catalogue table, and a sum over the versions of those of its rows that are schema.
-- https://www.postgresql.org/docs/current/ddl-system-columns.html
-- A changed row has a new xmin or, changed again in the same transaction, at least a new ctid.
-- ANALYZE and VACUUM write their numbers in place and change neither. A sum does not depend on
-- the order of the rows.
-- Objects below 16384 were made by initdb. The exclusions are a short list, so that they are cheap.
WITH elsewhere AS MATERIALIZED (
    SELECT n.oid
      FROM pg_catalog.pg_namespace AS n
     WHERE n.nspname = 'airlock'
        OR n.nspname LIKE 'pg\_temp\_%' OR n.nspname LIKE 'pg\_toast\_temp\_%'
), foreign_relation AS MATERIALIZED (
    SELECT c.oid
      FROM pg_catalog.pg_class AS c
     WHERE c.relnamespace IN (SELECT e.oid FROM elsewhere AS e)
)
SELECT 'schema' AS source,
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0)) AS versions
  FROM pg_catalog.pg_namespace AS x
 WHERE x.oid NOT IN (SELECT e.oid FROM elsewhere AS e)
 UNION ALL
SELECT 'relation',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_class AS x
 WHERE x.oid >= 16384 AND x.relnamespace NOT IN (SELECT e.oid FROM elsewhere AS e)
   AND x.relkind <> 't'
 UNION ALL
SELECT 'attribute',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_attribute AS x
 WHERE x.attrelid >= 16384 AND x.attrelid NOT IN (SELECT r.oid FROM foreign_relation AS r)
   AND x.attnum > 0
 UNION ALL
SELECT 'attrdef',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_attrdef AS x
 WHERE x.adrelid >= 16384 AND x.adrelid NOT IN (SELECT r.oid FROM foreign_relation AS r)
 UNION ALL
SELECT 'constraint',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_constraint AS x
 WHERE x.oid >= 16384 AND x.connamespace NOT IN (SELECT e.oid FROM elsewhere AS e)
 UNION ALL
-- Before 14 an index became valid in place, so its flags count too.
SELECT 'index',
       pg_catalog.sum(pg_catalog.hashtextextended(
           pg_catalog.concat(x.xmin, x.ctid, x.indisvalid, x.indisready), 0))
  FROM pg_catalog.pg_index AS x
 WHERE x.indexrelid >= 16384 AND x.indexrelid NOT IN (SELECT r.oid FROM foreign_relation AS r)
 UNION ALL
SELECT 'inherits',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_inherits AS x
 WHERE x.inhrelid >= 16384 AND x.inhrelid NOT IN (SELECT r.oid FROM foreign_relation AS r)
 UNION ALL
SELECT 'trigger',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_trigger AS x
 WHERE x.tgrelid >= 16384 AND x.tgrelid NOT IN (SELECT r.oid FROM foreign_relation AS r)
 UNION ALL
SELECT 'rewrite',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_rewrite AS x
 WHERE x.ev_class >= 16384 AND x.ev_class NOT IN (SELECT r.oid FROM foreign_relation AS r)
 UNION ALL
SELECT 'policy',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_policy AS x
 WHERE x.polrelid >= 16384 AND x.polrelid NOT IN (SELECT r.oid FROM foreign_relation AS r)
 UNION ALL
SELECT 'sequence',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_sequence AS x
 WHERE x.seqrelid >= 16384 AND x.seqrelid NOT IN (SELECT r.oid FROM foreign_relation AS r)
 UNION ALL
SELECT 'partitioned_table',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_partitioned_table AS x
 WHERE x.partrelid >= 16384 AND x.partrelid NOT IN (SELECT r.oid FROM foreign_relation AS r)
 UNION ALL
SELECT 'foreign_table',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_foreign_table AS x
 WHERE x.ftrelid >= 16384 AND x.ftrelid NOT IN (SELECT r.oid FROM foreign_relation AS r)
 UNION ALL
SELECT 'type',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_type AS x
 WHERE x.oid >= 16384 AND x.typnamespace NOT IN (SELECT e.oid FROM elsewhere AS e)
 UNION ALL
SELECT 'enum',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_enum AS x
 WHERE x.enumtypid >= 16384
 UNION ALL
SELECT 'range',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_range AS x
 WHERE x.rngtypid >= 16384
 UNION ALL
SELECT 'proc',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_proc AS x
 WHERE x.oid >= 16384 AND x.pronamespace NOT IN (SELECT e.oid FROM elsewhere AS e)
 UNION ALL
SELECT 'aggregate',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_aggregate AS x
 WHERE x.aggfnoid::pg_catalog.oid >= 16384
 UNION ALL
SELECT 'statistic_ext',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_statistic_ext AS x
 WHERE x.oid >= 16384 AND x.stxnamespace NOT IN (SELECT e.oid FROM elsewhere AS e)
 UNION ALL
SELECT 'operator',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_operator AS x
 WHERE x.oid >= 16384
 UNION ALL
SELECT 'opclass',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_opclass AS x
 WHERE x.oid >= 16384
 UNION ALL
SELECT 'opfamily',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_opfamily AS x
 WHERE x.oid >= 16384
 UNION ALL
SELECT 'amop',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_amop AS x
 WHERE x.oid >= 16384
 UNION ALL
SELECT 'amproc',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_amproc AS x
 WHERE x.oid >= 16384
 UNION ALL
SELECT 'cast',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_cast AS x
 WHERE x.oid >= 16384
 UNION ALL
SELECT 'collation',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_collation AS x
 WHERE x.oid >= 16384 AND x.collnamespace NOT IN (SELECT e.oid FROM elsewhere AS e)
 UNION ALL
SELECT 'conversion',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_conversion AS x
 WHERE x.oid >= 16384 AND x.connamespace NOT IN (SELECT e.oid FROM elsewhere AS e)
 UNION ALL
SELECT 'ts_config',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_ts_config AS x
 WHERE x.oid >= 16384 AND x.cfgnamespace NOT IN (SELECT e.oid FROM elsewhere AS e)
 UNION ALL
SELECT 'ts_config_map',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_ts_config_map AS x
 WHERE x.mapcfg >= 16384
 UNION ALL
SELECT 'ts_dict',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_ts_dict AS x
 WHERE x.oid >= 16384 AND x.dictnamespace NOT IN (SELECT e.oid FROM elsewhere AS e)
 UNION ALL
SELECT 'ts_parser',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_ts_parser AS x
 WHERE x.oid >= 16384
 UNION ALL
SELECT 'ts_template',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_ts_template AS x
 WHERE x.oid >= 16384
 UNION ALL
SELECT 'am',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_am AS x
 WHERE x.oid >= 16384
 UNION ALL
SELECT 'language',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_language AS x
 WHERE x.oid >= 16384
 UNION ALL
SELECT 'transform',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_transform AS x
 WHERE x.oid >= 16384
 UNION ALL
SELECT 'event_trigger',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_event_trigger AS x
 UNION ALL
SELECT 'extension',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_extension AS x
 UNION ALL
SELECT 'publication',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_publication AS x
 UNION ALL
SELECT 'publication_rel',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_publication_rel AS x
 UNION ALL -- 15
SELECT 'publication_namespace', -- 15
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0)) -- 15
  FROM pg_catalog.pg_publication_namespace AS x -- 15
 UNION ALL
SELECT 'foreign_data_wrapper',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_foreign_data_wrapper AS x
 UNION ALL
SELECT 'foreign_server',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_foreign_server AS x
 UNION ALL
SELECT 'default_acl',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_default_acl AS x
 UNION ALL
SELECT 'tablespace',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_tablespace AS x
-- Options of a TOAST table are set on the table and kept there.
 UNION ALL
SELECT 'toast', pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_class AS x
 WHERE x.relkind = 't' AND x.reloptions IS NOT NULL
-- Comments, but not the five thousand that initdb wrote.
 UNION ALL
SELECT 'description',
       pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_description AS x
 WHERE (x.objoid >= 16384
        OR x.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
        OR x.classoid = 'pg_catalog.pg_extension'::pg_catalog.regclass)
   AND x.objoid NOT IN (SELECT e.oid FROM elsewhere AS e)
   AND x.objoid NOT IN (SELECT r.oid FROM foreign_relation AS r)
-- Membership of extensions, and owners of sequences: written nowhere else.
 UNION ALL
SELECT 'member', pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_depend AS x
 WHERE x.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
 UNION ALL
SELECT 'owned', pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(x.xmin, x.ctid), 0))
  FROM pg_catalog.pg_sequence AS q
  JOIN pg_catalog.pg_depend AS x
    ON x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND x.objid = q.seqrelid
 WHERE q.seqrelid NOT IN (SELECT r.oid FROM foreign_relation AS r)
-- A renamed role renames the owner of its objects; pg_authid itself is closed to us.
 UNION ALL
SELECT 'role', pg_catalog.sum(pg_catalog.hashtextextended(
                   pg_catalog.concat(x.oid, ' ', x.rolname), 0))
  FROM pg_catalog.pg_roles AS x
-- Another minor version may render the same definition in other words.
 UNION ALL
SELECT 'server', pg_catalog.current_setting('server_version_num')::numeric
 ORDER BY source
