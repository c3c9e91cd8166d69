-- Whether every row has a reference.
SELECT NOT EXISTS (SELECT FROM trades WHERE reference IS NULL);
