"""Values and rules of deployments. Pure: no I/O, no gRPC, no protobuf, no clock."""
