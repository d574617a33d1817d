-- Hours before this have been forgotten, so their absence is no fault.
ALTER TABLE series_head ADD COLUMN forgotten_at timestamptz NOT NULL DEFAULT '-infinity';
