-- A row is one line of the journal. Lines of other deploys keep their numbers; those of deploy $1
-- were written in both ledgers at once, and are numbered anew in the order of their times.
INSERT INTO airlock.event (deploy, sequence, at, fence, step, phase, detail)
OVERRIDING SYSTEM VALUE
SELECT c.deploy, c.sequence, c.at, c.fence, c.step, c.phase, c.detail
FROM pg_temp.carried_event AS c
WHERE c.deploy <> $1
ON CONFLICT (sequence) DO NOTHING;

CREATE TEMP TABLE merged_event ON COMMIT DROP AS
SELECT c.at, c.fence, c.step, c.phase, c.detail
FROM pg_temp.carried_event AS c
WHERE c.deploy = $1
UNION
SELECT e.at, e.fence, e.step, e.phase, e.detail
FROM airlock.event AS e
WHERE e.deploy = $1;

DELETE FROM airlock.event WHERE deploy = $1;

SELECT pg_catalog.setval(
    pg_catalog.pg_get_serial_sequence('airlock.event', 'sequence'),
    greatest(
        (SELECT pg_catalog.max(e.sequence) FROM airlock.event AS e),
        (SELECT pg_catalog.max(c.sequence) FROM pg_temp.carried_event AS c),
        1));

INSERT INTO airlock.event (deploy, at, fence, step, phase, detail)
SELECT $1, m.at, m.fence, m.step, m.phase, m.detail
FROM pg_temp.merged_event AS m
ORDER BY m.at;

DROP TABLE pg_temp.merged_event
