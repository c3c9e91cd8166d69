-- Whether the column is there.
SELECT count(*) = 1 FROM pg_attribute
WHERE attrelid = 'trades'::regclass AND attname = 'memo';
