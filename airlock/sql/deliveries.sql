-- One undelivered alert on its way to one channel.
SELECT delivery.alert, delivery.channel, delivery.attempts, delivery.last_error,
    extract(epoch FROM pg_catalog.clock_timestamp() - delivery.tried_at)::double precision
        AS waited_s,
    delivery.refused, delivery.delivered_at IS NOT NULL AS taken
FROM airlock.delivery
JOIN airlock.alert ON alert.id = delivery.alert
WHERE alert.delivered_at IS NULL
ORDER BY delivery.alert, delivery.channel
