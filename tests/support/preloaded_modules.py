"""Imported last by the fork server: what a server does at each start and once in a process is done before the fork.

A start reads the SQL, builds the OpenAPI document, compiles the patterns of the routes, and defines its arguments,
which takes a third of its CPU time. The garbage collector of forked processes leaves the loaded modules alone: a server
collects once at its start, which takes 30 ms of CPU time, and a copy of each memory page with objects, if it includes
all modules.
"""

import argparse
import gc

import tornado.web

import shm.cli.serve
from shm.db.statements import statements
from shm.server.app import ROUTES, describe_routes
from shm.server.http.operations import validate_operations

describe_routes()
statements()
tornado.web.Application([(pattern, handler, {}) for pattern, handler in ROUTES])
for pattern, handler in ROUTES:
    validate_operations(pattern, handler)
shm.cli.serve.configure(argparse.ArgumentParser())

gc.collect()
gc.freeze()
