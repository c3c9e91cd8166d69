-- One alert of the target $1 in one of the states $2 whose incident no later alert has ended, oldest
-- first. Where an alert names no incident an older version wrote it: the target had one, and each
-- alert that resolved ended it.
SELECT opened.id, opened.deploy, opened.dedup_key, opened.body
FROM airlock.alert AS opened
WHERE opened.body ->> 'target' = $1
    AND opened.body ->> 'state' = ANY ($2)
    AND NOT EXISTS (
        SELECT
        FROM airlock.alert AS later
        WHERE later.id > opened.id
            AND later.body ->> 'target' = $1
            AND CASE
                WHEN later.body ? 'ends' THEN later.body -> 'ends' ? coalesce(
                    nullif(opened.body ->> 'incident', ''), 'airlock-' || $1)
                ELSE (later.body ->> 'resolves')::boolean
            END
    )
ORDER BY opened.id
