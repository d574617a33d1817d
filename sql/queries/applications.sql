-- name: ensure
-- The application of a name, made by the first instance that proves its key. Many may do so at once.
INSERT INTO applications (slug, name) VALUES (%(slug)s, %(name)s)
ON CONFLICT (slug) DO NOTHING;

-- name: page
-- Applications by slug, after one.
SELECT slug, name, github_url, logo_url, stars, created_at, updated_at, overrides, public_metrics
FROM applications
WHERE %(after)s::text IS NULL OR slug > %(after)s
ORDER BY slug
LIMIT %(most)s;

-- name: find (prepared)
-- The application of a slug, or else of a name.
SELECT slug, name, github_url, logo_url, stars, created_at, updated_at, overrides, public_metrics
FROM applications
WHERE slug = %(app)s::text OR name = %(app)s
ORDER BY slug <> %(app)s, slug
LIMIT 1;

-- name: update
-- What the vendor says of an application; what is null stays as it is.
UPDATE applications SET
    github_url = CASE WHEN %(github_url)s::text IS NULL THEN github_url ELSE nullif(%(github_url)s, '') END,
    logo_url = CASE WHEN %(logo_url)s::text IS NULL THEN logo_url ELSE nullif(%(logo_url)s, '') END,
    overrides = coalesce(%(overrides)s::jsonb, overrides),
    public_metrics = coalesce(%(public_metrics)s::text[], public_metrics),
    updated_at = now()
WHERE slug = %(slug)s
RETURNING slug;
