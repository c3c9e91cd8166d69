-- One line of the journal, or none when the deploy has another fence by now. Without a lock on the
-- deploy's row: a broken step may still hold one.
INSERT INTO airlock.event (deploy, fence, step, phase, detail)
SELECT d.id, d.fence, $3, $4, $5
FROM airlock.deploy AS d
WHERE d.id = $1 AND d.fence = $2
