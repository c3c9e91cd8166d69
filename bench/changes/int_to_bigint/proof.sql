-- Whether quantity is wide, obligatory and alone.
SELECT pg_catalog.format_type(atttypid, NULL) = 'bigint' AND attnotnull AND NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = 'trades'::regclass AND attname LIKE 'quantity\_%')
FROM pg_attribute WHERE attrelid = 'trades'::regclass AND attname = 'quantity';
