"""The tables of a database of the original server."""

# The columns of the original's tables that hold data.
CREATE_ORIGINAL = """
    CREATE TABLE applications (
        id uuid PRIMARY KEY, app_slug text UNIQUE, app_name text, github_url text, github_stars int,
        github_stars_updated_at timestamptz, logo_url text, created_at timestamptz, updated_at timestamptz
    );
    CREATE TABLE instances (
        id uuid DEFAULT gen_random_uuid(), instance_id uuid UNIQUE, public_key bytea, app_name text, app_version text,
        deployment_mode text, environment text, os_arch text, status text, last_seen_at timestamptz,
        created_at timestamptz, application_id uuid
    );
    CREATE TABLE snapshots (id bigserial, instance_id uuid, snapshot_at timestamptz, data jsonb);
"""
