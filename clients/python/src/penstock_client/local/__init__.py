"""The stack on this machine: starting, watching and stopping the three services as separate processes."""
