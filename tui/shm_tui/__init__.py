"""The console of SHM: live tables of instances and KPI tiles in a terminal."""
