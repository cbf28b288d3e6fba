"""Backends behind MDS's ports, and the formats it reads and writes: one file each."""
