"""Use cases and loops of deployments, over ports."""
