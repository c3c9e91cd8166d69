ALTER TABLE trades ALTER COLUMN quantity TYPE bigint;
