-- name: ensure
-- The application of a name, made by the first instance that proves its key. Many may do so at once.
INSERT INTO applications (slug, name) VALUES (%(slug)s, %(name)s)
ON CONFLICT (slug) DO NOTHING;

-- name: page
-- Applications by slug, each with its counts of instances. `active`: seen within the window and not revoked.
SELECT
    a.slug, a.name, a.github_url, a.logo_url, a.stars, a.created_at, a.updated_at,
    coalesce(c.total, 0) AS total,
    coalesce(c.active, 0) AS active,
    coalesce(c.pending, 0) AS pending,
    coalesce(c.revoked, 0) AS revoked,
    coalesce(c.counted, 0) AS counted
FROM applications a
LEFT JOIN (
    SELECT
        app_slug,
        count(*) AS total,
        count(*) FILTER (WHERE status = 'active' AND last_seen_at > now() - %(active_window)s::interval) AS active,
        count(*) FILTER (WHERE status = 'pending') AS pending,
        count(*) FILTER (WHERE status = 'revoked') AS revoked,
        count(*) FILTER (
            WHERE status = 'active' AND last_seen_at > now() - %(active_window)s::interval
            AND NOT ephemeral AND lower(environment) <> ALL(%(uncounted)s::text[])
        ) AS counted
    FROM instance_items
    WHERE %(slug)s::text IS NULL OR app_slug = %(slug)s
    GROUP BY app_slug
) c ON c.app_slug = a.slug
WHERE (%(slug)s::text IS NULL OR a.slug = %(slug)s) AND (%(after)s::text IS NULL OR a.slug > %(after)s)
ORDER BY a.slug
LIMIT %(most)s;
