"""OpenAPI 3.1 from gRPC descriptors, and a page to read and try it."""
