"""The data path's transport: a small port, its grpc.aio adapter and an in-memory one."""
