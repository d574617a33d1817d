"""The `shm` command and its subcommands."""
