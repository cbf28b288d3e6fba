"""The faces of a running service: gRPC and REST."""
