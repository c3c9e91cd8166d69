-- One alert and a channel, of these, that never took it: given up within the last $2 seconds.
SELECT delivery.alert, delivery.channel, delivery.attempts, delivery.last_error, delivery.refused
FROM airlock.delivery
JOIN airlock.alert ON alert.id = delivery.alert
WHERE alert.delivered_at > pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2)
    AND delivery.delivered_at IS NULL AND delivery.attempts > 0 AND delivery.channel = ANY ($1)
ORDER BY delivery.alert, delivery.channel
