"""The gateway's faces: inference over gRPC and REST, and the servicers of its control plane."""
