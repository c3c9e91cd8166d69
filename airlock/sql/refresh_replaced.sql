-- What stood in the database before does not stand in the one that takes its place.
UPDATE pg_temp.carried_migration SET state = 'replaced' WHERE state <> 'rolled_back'
