"""Backends behind the gateway's ports, one file each."""
