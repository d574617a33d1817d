-- Whether an install erased itself. Then a registration without a time after the erasure is refused while its hash is
-- kept: it may be a copy of an old one. After a deletion by an admin it is accepted, because an install that still runs
-- registers again like this.

ALTER TABLE erased_identities ADD COLUMN is_by_install boolean NOT NULL DEFAULT FALSE;
