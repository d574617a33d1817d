"""PostgreSQL: connections, named statements, migrations, partitions, the embedded server."""
