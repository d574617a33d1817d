"""Imported last by the fork server: the garbage collector of forked processes leaves the loaded modules alone.

A server collects once at its start. That takes 30 ms of CPU time, and a copy of each memory page with objects, if it
includes all modules.
"""

import gc

gc.collect()
gc.freeze()
