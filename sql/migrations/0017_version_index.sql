-- Instances by version: the filter for a version, for those behind it, and for ranges.
CREATE INDEX instances_by_version ON instances (version_rank, app_slug);
