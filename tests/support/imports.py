"""Finds the imports of a source file."""

import ast
from collections.abc import Iterator


def imported_modules(source: str) -> Iterator[str]:
    """The names of all modules that a source file imports, at any level of nesting."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
