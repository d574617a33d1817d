"""`shm ssh`: the console over SSH, for the keys that an admin has authorized."""
