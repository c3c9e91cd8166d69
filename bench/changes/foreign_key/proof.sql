-- Whether every row is known to obey.
SELECT convalidated FROM pg_constraint WHERE conname = 'trades_desk';
