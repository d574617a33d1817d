-- The common part of registrations and the import of instances.

-- part: enrolment_batch
-- `batch`: instances (a JSON array) by position. `may_add` and `action_hash` are of registrations, the status and the times
-- of an import.
batch AS MATERIALIZED (
    SELECT *, decode(encoded_key, 'base64') AS public_key
    FROM ROWS FROM (
        jsonb_to_recordset(%(batch)s::jsonb) AS (
            instance_id uuid,
            public_key text,
            app_slug text,
            app_name text,
            app_version text,
            version_rank text,
            environment text,
            deployment_mode text,
            os_arch text,
            may_add boolean,
            action_hash text,
            status text,
            first_seen_at timestamptz,
            last_seen_at timestamptz
        )
    ) WITH ORDINALITY AS member (
        instance_id, encoded_key, app_slug, app_name, app_version, version_rank, environment, deployment_mode, os_arch,
        may_add, action_hash, status, first_seen_at, last_seen_at, position
    )
),
