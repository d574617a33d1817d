"""`python -m shm_sdk`."""

import sys

from shm_sdk.cli import main

sys.exit(main())
