-- When the background jobs last completed a round over all of them, in one row. Any server can tell from it that they have
-- stopped, whichever process runs them.
CREATE TABLE background_rounds (
    finished_at timestamptz NOT NULL
);

INSERT INTO background_rounds (finished_at) VALUES (now());

ANALYZE background_rounds;
