-- Where the days of an application that an import stores come from: the name of the other database's hash key, and the
-- application's slug there. Days of another source would mix with them, so they are not stored.

ALTER TABLE applications ADD COLUMN days_source text;
