-- The sequence number of an instance's current snapshot, if it has one: a newer snapshot with a number that is not greater
-- comes from another process with the same identity, such as a copy of a virtual machine.
ALTER TABLE instances ADD COLUMN sequence bigint;
