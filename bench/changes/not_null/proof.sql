-- Whether the column is NOT NULL, and the check that led there is gone.
SELECT attnotnull AND NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'trades_settled')
FROM pg_attribute WHERE attrelid = 'trades'::regclass AND attname = 'settled_on';
