-- The new deploy's id and fence.
INSERT INTO airlock.deploy
    (target, requester, reason, request, plan, schema_before, holder, kind, fence)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, pg_catalog.nextval('airlock.fence'))
RETURNING id, fence
