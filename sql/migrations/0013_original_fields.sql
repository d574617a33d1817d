-- The original's fields of an application: an ID, which never changes, and the time at which its stars were read.
ALTER TABLE applications
    ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    ADD COLUMN stars_updated_at timestamptz;
