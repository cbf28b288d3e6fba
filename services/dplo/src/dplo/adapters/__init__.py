"""One backend behind a port per module."""
