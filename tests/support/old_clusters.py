"""Data directories that an earlier major version of PostgreSQL created, as an earlier release of SHM would have."""

import os
from pathlib import Path

from shm.db.embedded.cluster_files import ClusterFiles
from shm.db.embedded.owner import make_traversable, postgres_owner
from shm.db.embedded.postgres import EmbeddedPostgres
from shm.db.embedded.programs import PACKAGE_DIRECTORIES, POSTGRES_MAJOR, programs_directory, run_program

OLDER_MAJOR = min(PACKAGE_DIRECTORIES)
assert OLDER_MAJOR < POSTGRES_MAJOR


def create_older_cluster(data_dir: Path) -> EmbeddedPostgres:
    """Creates an embedded PostgreSQL of the older major version of the package. It does not run."""
    cluster = data_dir / "postgres"
    cluster.mkdir(parents=True, mode=0o700)
    owner = postgres_owner(data_dir, cluster)
    if owner:
        os.chown(cluster, owner.pw_uid, owner.pw_gid)
        make_traversable(data_dir)
    initdb = programs_directory(owner, OLDER_MAJOR) / "initdb"
    options = ["--username", "postgres", "--encoding", "UTF8", "--locale", "C", "--auth-local", "trust"]
    status, output = run_program([str(initdb), "--pgdata", str(cluster), *options], owner)
    assert status == 0, output
    ClusterFiles(cluster, owner).include_configuration(cluster)
    return EmbeddedPostgres(data_dir, any_major=True)
