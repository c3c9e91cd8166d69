-- The new deploy's id and fence. The journal keeps which run opened it: a later one may take it over.
WITH opened AS (
    INSERT INTO airlock.deploy
        (target, requester, reason, request, plan, schema_before, holder, kind, flow_run, fence)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, pg_catalog.nextval('airlock.fence'))
    RETURNING id, fence
), journaled AS (
    INSERT INTO airlock.event (deploy, fence, step, phase, detail)
    SELECT id, fence, $10, 'done', $9::pg_catalog.text FROM opened WHERE $9::pg_catalog.text IS NOT NULL
)
SELECT id, fence FROM opened
