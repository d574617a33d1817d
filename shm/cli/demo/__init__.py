"""A believable fleet of simulated installs, through the real SDK and protocol. `shm demo` brings it to a terminal."""
