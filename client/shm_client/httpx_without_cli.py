"""httpx without its command-line program, whose imports (click, pygments, rich) take as long as httpx itself.

httpx looks for the program when it is imported, and works where that is missing.
"""

import sys

PROGRAM = "httpx._main"

if "httpx" in sys.modules:
    import httpx as httpx
else:
    sys.modules[PROGRAM] = None  # type: ignore[assignment] # Python then raises ImportError, which httpx expects
    try:
        import httpx as httpx
    finally:
        del sys.modules[PROGRAM]
