-- What installs say about their metrics when they register, as a JSON object by key: suggestions for the vendor's overrides.
-- Only of registrations whose signature was verified, of active instances. Each registration with hints replaces them.
CREATE TABLE metric_hints (
    instance_id uuid PRIMARY KEY,
    hints jsonb NOT NULL
);
