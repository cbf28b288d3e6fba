"""Ports that are free now."""

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on. Prefer port 0 where the listener can say what it got: this one may be taken
    again.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
