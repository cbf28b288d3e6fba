"""Values and rules of packages and serving: no I/O, no gRPC, no protobuf."""
