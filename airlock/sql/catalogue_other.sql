-- One row: an object of a kind that a database has few of; its attributes as one JSON object.
-- https://www.postgresql.org/docs/current/catalogs.html
-- Columns that came with a later version are taken out of the row as JSON: NULL before.
SELECT o.key,
       pg_catalog.jsonb_strip_nulls(o.attributes)::pg_catalog.text AS attributes,
       CASE WHEN o.owner <> 0 THEN pg_catalog.pg_get_userbyid(o.owner) END AS owner,
       (SELECT pg_catalog.array_agg(g.item::pg_catalog.text ORDER BY g.item::pg_catalog.text COLLATE "C")
          FROM pg_catalog.unnest(o.acl) AS g (item)
         WHERE NOT (o.acl @> o.built_in AND o.acl <@ o.built_in)) AS grants,
       k.description AS comment
  FROM (
SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass AS class, n.oid,
       pg_catalog.format('schema %I', n.nspname) AS key,
       pg_catalog.jsonb_build_object('name', n.nspname) AS attributes,
       n.nspowner AS owner, n.nspacl AS acl, pg_catalog.acldefault('n', n.nspowner) AS built_in
  FROM pg_catalog.pg_namespace AS n
 WHERE n.nspname NOT IN ('information_schema', 'airlock') AND n.nspname NOT LIKE 'pg\_%'
 UNION ALL
SELECT 'pg_catalog.pg_extension'::pg_catalog.regclass, e.oid,
       pg_catalog.format('extension %I', e.extname),
       pg_catalog.jsonb_build_object('name', e.extname, 'version', e.extversion,
                                     'schema', n.nspname),
       0, NULL, NULL
  FROM pg_catalog.pg_extension AS e
  JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
 UNION ALL
SELECT 'pg_catalog.pg_event_trigger'::pg_catalog.regclass, e.oid,
       pg_catalog.format('event trigger %I', e.evtname),
       pg_catalog.jsonb_build_object(
           'name', e.evtname, 'event', e.evtevent,
           'function', e.evtfoid::pg_catalog.regprocedure::pg_catalog.text, 'tags', e.evttags,
           'enabled', CASE e.evtenabled WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica'
                                        WHEN 'A' THEN 'always' END),
       e.evtowner, NULL, NULL
  FROM pg_catalog.pg_event_trigger AS e
  JOIN pg_catalog.pg_proc AS p ON p.oid = e.evtfoid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace AND n.nspname <> 'airlock'
 UNION ALL
-- Objects below 16384 were made by initdb.
SELECT 'pg_catalog.pg_cast'::pg_catalog.regclass, c.oid,
       pg_catalog.format('cast (%s AS %s)', pg_catalog.format_type(c.castsource, NULL),
                         pg_catalog.format_type(c.casttarget, NULL)),
       pg_catalog.jsonb_build_object(
           'function', nullif(c.castfunc, 0)::pg_catalog.regprocedure::pg_catalog.text,
           'context', CASE c.castcontext WHEN 'a' THEN 'assignment' WHEN 'i' THEN 'implicit'
                                         ELSE 'explicit' END,
           'method', CASE c.castmethod WHEN 'i' THEN 'inout' WHEN 'b' THEN 'binary'
                                       ELSE 'function' END),
       0, NULL, NULL
  FROM pg_catalog.pg_cast AS c
 WHERE c.oid >= 16384
 UNION ALL
SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid,
       pg_catalog.format('operator %I.%s(%s, %s)', n.nspname, o.oprname,
                         CASE o.oprleft WHEN 0 THEN 'NONE'
                                        ELSE pg_catalog.format_type(o.oprleft, NULL) END,
                         CASE o.oprright WHEN 0 THEN 'NONE'
                                         ELSE pg_catalog.format_type(o.oprright, NULL) END),
       pg_catalog.jsonb_build_object(
           'schema', n.nspname, 'name', o.oprname,
           'function', nullif(o.oprcode::pg_catalog.oid, 0)::pg_catalog.regprocedure::pg_catalog.text,
           'commutator', nullif(o.oprcom, 0)::pg_catalog.regoperator::pg_catalog.text,
           'negator', nullif(o.oprnegate, 0)::pg_catalog.regoperator::pg_catalog.text,
           'restrict', nullif(o.oprrest::pg_catalog.oid, 0)::pg_catalog.regprocedure::pg_catalog.text,
           'join', nullif(o.oprjoin::pg_catalog.oid, 0)::pg_catalog.regprocedure::pg_catalog.text,
           'hashes', nullif(o.oprcanhash, false), 'merges', nullif(o.oprcanmerge, false)),
       o.oprowner, NULL, NULL
  FROM pg_catalog.pg_operator AS o
  JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
 WHERE n.nspname NOT IN ('information_schema', 'airlock') AND n.nspname NOT LIKE 'pg\_%'
 UNION ALL
SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, o.oid,
       pg_catalog.format('operator class %I.%I USING %I', n.nspname, o.opcname, m.amname),
       pg_catalog.jsonb_build_object(
           'schema', n.nspname, 'name', o.opcname,
           'type', pg_catalog.format_type(o.opcintype, NULL),
           'default', nullif(o.opcdefault, false),
           'stores', nullif(o.opckeytype, 0)::pg_catalog.regtype::pg_catalog.text,
           'family', pg_catalog.format('%I.%I', b.nspname, f.opfname)),
       o.opcowner, NULL, NULL
  FROM pg_catalog.pg_opclass AS o
  JOIN pg_catalog.pg_namespace AS n ON n.oid = o.opcnamespace
  JOIN pg_catalog.pg_am AS m ON m.oid = o.opcmethod
  JOIN pg_catalog.pg_opfamily AS f ON f.oid = o.opcfamily
  JOIN pg_catalog.pg_namespace AS b ON b.oid = f.opfnamespace
 WHERE n.nspname NOT IN ('information_schema', 'airlock') AND n.nspname NOT LIKE 'pg\_%'
 UNION ALL
SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, f.oid,
       pg_catalog.format('operator family %I.%I USING %I', n.nspname, f.opfname, m.amname),
       pg_catalog.jsonb_build_object(
           'schema', n.nspname, 'name', f.opfname,
           'operators', (
               SELECT pg_catalog.jsonb_agg(
                          pg_catalog.concat_ws(
                              ' ', a.amopstrategy, a.amopopr::pg_catalog.regoperator,
                              CASE WHEN a.amopsortfamily <> 0 THEN (
                                  SELECT pg_catalog.format('FOR ORDER BY %I.%I',
                                                           m.nspname, s.opfname)
                                    FROM pg_catalog.pg_opfamily AS s
                                    JOIN pg_catalog.pg_namespace AS m ON m.oid = s.opfnamespace
                                   WHERE s.oid = a.amopsortfamily) END)
                          ORDER BY a.amopstrategy, a.amopopr::pg_catalog.regoperator::pg_catalog.text)
                 FROM pg_catalog.pg_amop AS a WHERE a.amopfamily = f.oid),
           'functions', (
               SELECT pg_catalog.jsonb_agg(
                          pg_catalog.format('%s (%s, %s) %s', a.amprocnum,
                                            pg_catalog.format_type(a.amproclefttype, NULL),
                                            pg_catalog.format_type(a.amprocrighttype, NULL),
                                            a.amproc::pg_catalog.regprocedure)
                          ORDER BY a.amprocnum, a.amproc::pg_catalog.regprocedure::pg_catalog.text)
                 FROM pg_catalog.pg_amproc AS a WHERE a.amprocfamily = f.oid)),
       f.opfowner, NULL, NULL
  FROM pg_catalog.pg_opfamily AS f
  JOIN pg_catalog.pg_namespace AS n ON n.oid = f.opfnamespace
  JOIN pg_catalog.pg_am AS m ON m.oid = f.opfmethod
 WHERE n.nspname NOT IN ('information_schema', 'airlock') AND n.nspname NOT LIKE 'pg\_%'
 UNION ALL
-- Without its version: that is the operating system's, and REFRESH VERSION is upkeep.
SELECT 'pg_catalog.pg_collation'::pg_catalog.regclass, c.oid,
       pg_catalog.format('collation %I.%I', n.nspname, c.collname),
       pg_catalog.jsonb_build_object(
           'schema', n.nspname, 'name', c.collname, 'provider', c.collprovider,
           'deterministic', c.collisdeterministic, 'encoding', c.collencoding,
           'collate', c.collcollate, 'ctype', c.collctype,
           'locale', coalesce(pg_catalog.to_jsonb(c) ->> 'colllocale',
                              pg_catalog.to_jsonb(c) ->> 'colliculocale'),
           'rules', pg_catalog.to_jsonb(c) ->> 'collicurules'),
       c.collowner, NULL, NULL
  FROM pg_catalog.pg_collation AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.collnamespace
 WHERE n.nspname NOT IN ('information_schema', 'airlock') AND n.nspname NOT LIKE 'pg\_%'
 UNION ALL
SELECT 'pg_catalog.pg_conversion'::pg_catalog.regclass, c.oid,
       pg_catalog.format('conversion %I.%I', n.nspname, c.conname),
       pg_catalog.jsonb_build_object(
           'schema', n.nspname, 'name', c.conname, 'function', c.conproc::pg_catalog.text,
           'from', pg_catalog.pg_encoding_to_char(c.conforencoding),
           'to', pg_catalog.pg_encoding_to_char(c.contoencoding),
           'default', nullif(c.condefault, false)),
       c.conowner, NULL, NULL
  FROM pg_catalog.pg_conversion AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.connamespace
 WHERE n.nspname NOT IN ('information_schema', 'airlock') AND n.nspname NOT LIKE 'pg\_%'
 UNION ALL
SELECT 'pg_catalog.pg_publication'::pg_catalog.regclass, p.oid,
       pg_catalog.format('publication %I', p.pubname),
       pg_catalog.jsonb_build_object(
           'name', p.pubname, 'all_tables', nullif(p.puballtables, false),
           'via_root', nullif(p.pubviaroot, false),
           'publishes', pg_catalog.concat_ws(
               ', ', CASE WHEN p.pubinsert THEN 'insert' END,
               CASE WHEN p.pubupdate THEN 'update' END,
               CASE WHEN p.pubdelete THEN 'delete' END,
               CASE WHEN p.pubtruncate THEN 'truncate' END),
           'generated_columns', nullif(pg_catalog.to_jsonb(p) ->> 'pubgencols', 'n'),
           'schemas', (SELECT pg_catalog.jsonb_agg(s.nspname ORDER BY s.nspname COLLATE "C") -- 15
                         FROM pg_catalog.pg_publication_namespace AS m -- 15
                         JOIN pg_catalog.pg_namespace AS s ON s.oid = m.pnnspid -- 15
                        WHERE m.pnpubid = p.oid), -- 15
           'tables', (
               SELECT pg_catalog.jsonb_agg(
                          pg_catalog.concat_ws(
                              ' ', r.prrelid::pg_catalog.regclass,
                              '(' || (SELECT pg_catalog.string_agg( -- 15
                                                 a.attname, ', ' ORDER BY a.attname) -- 15
                                        FROM pg_catalog.pg_attribute AS a -- 15
                                       WHERE a.attrelid = r.prrelid -- 15
                                         AND a.attnum = ANY (r.prattrs::pg_catalog.int2[])) || ')', -- 15
                              'WHERE ' || pg_catalog.pg_get_expr(r.prqual, r.prrelid), -- 15
                              NULL)
                          ORDER BY r.prrelid::pg_catalog.regclass::pg_catalog.text)
                 FROM pg_catalog.pg_publication_rel AS r
                WHERE r.prpubid = p.oid)),
       p.pubowner, NULL, NULL
  FROM pg_catalog.pg_publication AS p
 UNION ALL
SELECT 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, f.oid,
       pg_catalog.format('foreign data wrapper %I', f.fdwname),
       pg_catalog.jsonb_build_object(
           'name', f.fdwname,
           'options', (SELECT pg_catalog.array_agg(o.item ORDER BY o.item COLLATE "C")
                         FROM pg_catalog.unnest(f.fdwoptions) AS o (item)),
           'handler', nullif(f.fdwhandler, 0)::pg_catalog.regprocedure::pg_catalog.text,
           'validator', nullif(f.fdwvalidator, 0)::pg_catalog.regprocedure::pg_catalog.text),
       f.fdwowner, f.fdwacl, pg_catalog.acldefault('F', f.fdwowner)
  FROM pg_catalog.pg_foreign_data_wrapper AS f
 UNION ALL
SELECT 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, s.oid,
       pg_catalog.format('server %I', s.srvname),
       pg_catalog.jsonb_build_object(
           'name', s.srvname, 'wrapper', f.fdwname, 'type', s.srvtype, 'version', s.srvversion,
           'options', (SELECT pg_catalog.array_agg(o.item ORDER BY o.item COLLATE "C")
                         FROM pg_catalog.unnest(s.srvoptions) AS o (item))),
       s.srvowner, s.srvacl, pg_catalog.acldefault('S', s.srvowner)
  FROM pg_catalog.pg_foreign_server AS s
  JOIN pg_catalog.pg_foreign_data_wrapper AS f ON f.oid = s.srvfdw
 UNION ALL
-- Its columns by name: pg_get_statisticsobjdef has them by position.
SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid,
       pg_catalog.format('statistics %I.%I', n.nspname, s.stxname),
       pg_catalog.jsonb_build_object(
           'schema', n.nspname, 'name', s.stxname,
           'table', s.stxrelid::pg_catalog.regclass::pg_catalog.text, 'kinds', s.stxkind,
           'columns', (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY a.attname COLLATE "C")
                         FROM pg_catalog.pg_attribute AS a
                        WHERE a.attrelid = s.stxrelid
                          AND a.attnum = ANY (s.stxkeys::pg_catalog.int2[])),
           'expressions', pg_catalog.pg_get_statisticsobjdef_expressions(s.oid), -- 14
           'target', nullif(s.stxstattarget, -1)),
       s.stxowner, NULL, NULL
  FROM pg_catalog.pg_statistic_ext AS s
  JOIN pg_catalog.pg_namespace AS n ON n.oid = s.stxnamespace
 WHERE n.nspname NOT IN ('information_schema', 'airlock') AND n.nspname NOT LIKE 'pg\_%'
 UNION ALL
SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, c.oid,
       pg_catalog.format('text search configuration %I.%I', n.nspname, c.cfgname),
       pg_catalog.jsonb_build_object(
           'schema', n.nspname, 'name', c.cfgname,
           'parser', (SELECT pg_catalog.format('%I.%I', m.nspname, p.prsname)
                        FROM pg_catalog.pg_ts_parser AS p
                        JOIN pg_catalog.pg_namespace AS m ON m.oid = p.prsnamespace
                       WHERE p.oid = c.cfgparser),
           'mapping', (SELECT pg_catalog.jsonb_agg(
                                  pg_catalog.format('%s %s', t.maptokentype,
                                                    t.mapdict::pg_catalog.regdictionary)
                                  ORDER BY t.maptokentype, t.mapseqno)
                         FROM pg_catalog.pg_ts_config_map AS t WHERE t.mapcfg = c.oid)),
       c.cfgowner, NULL, NULL
  FROM pg_catalog.pg_ts_config AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.cfgnamespace
 WHERE n.nspname NOT IN ('information_schema', 'airlock') AND n.nspname NOT LIKE 'pg\_%'
 UNION ALL
SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, d.oid,
       pg_catalog.format('text search dictionary %I.%I', n.nspname, d.dictname),
       pg_catalog.jsonb_build_object(
           'schema', n.nspname, 'name', d.dictname, 'options', d.dictinitoption,
           'template', (SELECT pg_catalog.format('%I.%I', m.nspname, t.tmplname)
                          FROM pg_catalog.pg_ts_template AS t
                          JOIN pg_catalog.pg_namespace AS m ON m.oid = t.tmplnamespace
                         WHERE t.oid = d.dicttemplate)),
       d.dictowner, NULL, NULL
  FROM pg_catalog.pg_ts_dict AS d
  JOIN pg_catalog.pg_namespace AS n ON n.oid = d.dictnamespace
 WHERE n.nspname NOT IN ('information_schema', 'airlock') AND n.nspname NOT LIKE 'pg\_%'
 UNION ALL
SELECT 'pg_catalog.pg_am'::pg_catalog.regclass, m.oid,
       pg_catalog.format('access method %I', m.amname),
       pg_catalog.jsonb_build_object(
           'name', m.amname, 'type', m.amtype,
           'handler', m.amhandler::pg_catalog.regprocedure::pg_catalog.text),
       0, NULL, NULL
  FROM pg_catalog.pg_am AS m
 WHERE m.oid >= 16384
 UNION ALL
SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, l.oid,
       pg_catalog.format('language %I', l.lanname),
       pg_catalog.jsonb_build_object(
           'name', l.lanname, 'trusted', l.lanpltrusted,
           'handler', nullif(l.lanplcallfoid, 0)::pg_catalog.regprocedure::pg_catalog.text,
           'inline', nullif(l.laninline, 0)::pg_catalog.regprocedure::pg_catalog.text,
           'validator', nullif(l.lanvalidator, 0)::pg_catalog.regprocedure::pg_catalog.text),
       l.lanowner, l.lanacl, pg_catalog.acldefault('l', l.lanowner)
  FROM pg_catalog.pg_language AS l
 WHERE l.oid >= 16384
 UNION ALL
SELECT 'pg_catalog.pg_transform'::pg_catalog.regclass, t.oid,
       pg_catalog.format('transform FOR %s LANGUAGE %I',
                         pg_catalog.format_type(t.trftype, NULL), l.lanname),
       pg_catalog.jsonb_build_object(
           'from', nullif(t.trffromsql, 0)::pg_catalog.regprocedure::pg_catalog.text,
           'to', nullif(t.trftosql, 0)::pg_catalog.regprocedure::pg_catalog.text),
       0, NULL, NULL
  FROM pg_catalog.pg_transform AS t
  JOIN pg_catalog.pg_language AS l ON l.oid = t.trflang
 UNION ALL
-- Rights that the next object will have, against those that it would have anyway.
SELECT 'pg_catalog.pg_default_acl'::pg_catalog.regclass, d.oid,
       pg_catalog.format('default privileges of %I%s ON %s', r.rolname,
                         ' IN SCHEMA ' || pg_catalog.quote_ident(n.nspname),
                         CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences'
                              WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types'
                              WHEN 'n' THEN 'schemas' ELSE 'large objects' END),
       pg_catalog.jsonb_build_object('role', r.rolname, 'schema', n.nspname),
       0, d.defaclacl, '{}'::pg_catalog.aclitem[]
  FROM pg_catalog.pg_default_acl AS d
  JOIN pg_catalog.pg_roles AS r ON r.oid = d.defaclrole
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = d.defaclnamespace
 WHERE n.nspname IS DISTINCT FROM 'airlock'
       ) AS o
  LEFT JOIN pg_catalog.pg_description AS k
    ON k.classoid = o.class AND k.objoid = o.oid AND k.objsubid = 0
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS x
                    WHERE x.classid = o.class AND x.objid = o.oid AND x.deptype = 'e')
 ORDER BY o.class, o.oid
