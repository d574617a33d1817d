"""A child process of `shm demo`: `python -m shm.cli.demo.child DESCRIPTOR MODULE ARGUMENT…`.

Runs the module as `python -m` does. `shm demo` holds the other end of the pipe with this descriptor. When it has died,
even by SIGKILL, the pipe ends, and this process gets SIGTERM as it would from a demo that ends in order.
"""

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Runs the module until it ends."""
    _, descriptor, module, *arguments = sys.argv
    threading.Thread(target=_end_with_parent, args=(int(descriptor),), daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_parent(descriptor: int) -> None:
    os.read(descriptor, 1)  # nothing is ever written: it returns at the end of the pipe
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
