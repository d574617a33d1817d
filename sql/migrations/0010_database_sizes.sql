-- The size of the database every hour of the last week, which predicts when its disk will be full.
CREATE TABLE database_sizes (
    measured_at timestamptz PRIMARY KEY DEFAULT now(),
    bytes bigint NOT NULL
);
