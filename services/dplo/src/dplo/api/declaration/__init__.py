"""Declarations as text: YAML, JSON or text format into a message, with errors by file, line and field."""

from dplo.api.declaration.reading import Declared, read_declaration

__all__ = ["Declared", "read_declaration"]
