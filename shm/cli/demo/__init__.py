"""`shm demo`: a fleet of simulated installs that report through the SDK, with a server and the console."""
