-- The feed's cursor at the time of each computed distribution: it can be verified until its application changes.
DELETE FROM distributions;
ALTER TABLE distributions ADD COLUMN cursor bigint NOT NULL;
