-- One boolean, or no row: is the detaching of the partition $2 from its parent $1 pending?
SELECT h.inhdetachpending AS is_pending
FROM pg_catalog.pg_inherits AS h
WHERE h.inhparent = $1 AND h.inhrelid = $2
