"""SHM: the console. Live instance tables and KPI panels in a terminal."""
