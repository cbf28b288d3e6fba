"""The modeler's face of MDS: decorators and values. Needs neither gRPC nor a framework."""
