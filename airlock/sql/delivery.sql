-- One attempt to hand an alert to a channel; without an error the channel has it. $4: it never will.
INSERT INTO airlock.delivery AS known
    (alert, channel, attempts, last_error, refused, tried_at, delivered_at)
VALUES ($1, $2, 1, $3, $4, pg_catalog.clock_timestamp(),
    CASE WHEN $3::pg_catalog.text IS NULL THEN pg_catalog.clock_timestamp() END)
ON CONFLICT (alert, channel) DO UPDATE SET
    attempts = known.attempts + 1,
    last_error = excluded.last_error,
    refused = excluded.refused,
    tried_at = excluded.tried_at,
    delivered_at = excluded.delivered_at
