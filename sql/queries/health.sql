-- name: ping
-- Answers when the database does.
SELECT 1 AS one;

-- name: size
-- How many bytes the database takes on its disk.
SELECT pg_database_size(current_database()) AS bytes;
