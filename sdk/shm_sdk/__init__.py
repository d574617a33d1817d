"""SHM: the client that lives inside the applications that others host."""
