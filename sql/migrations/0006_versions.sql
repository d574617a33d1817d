-- When an install first reported a version: how fast new ones are taken up. The rollup writes it, and it is kept as long
-- as the install is known.
CREATE TABLE versions_seen (
    instance_id uuid NOT NULL,
    app_version text NOT NULL,
    app_slug text NOT NULL,
    first_at timestamptz NOT NULL,
    PRIMARY KEY (instance_id, app_version)
);

CREATE INDEX versions_seen_by_application ON versions_seen (app_slug);
