-- Whether the index is there, whole.
SELECT indisvalid FROM pg_index WHERE indexrelid = 'trades_desk'::regclass;
