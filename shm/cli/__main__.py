"""`python -m shm.cli`: the `shm` command."""

import sys

from shm.cli.main import main

sys.exit(main())
