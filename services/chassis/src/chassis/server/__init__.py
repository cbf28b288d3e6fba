"""The faces of a running service: gRPC and REST, and what listens on them besides the service's own methods."""
