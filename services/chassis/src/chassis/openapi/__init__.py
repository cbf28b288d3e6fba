"""OpenAPI 3.1 from gRPC descriptors, and a page to read and try it.

from chassis import openapi

openapi.document(descriptor_set, ["example.v1.Greeter"], openapi.Info(title="Greeter", version="1"))
openapi.routes(...)     # Starlette routes for /openapi.json and /docs
openapi.open_inference(...)     # the hand-written /v2 of the Open Inference Protocol
"""

from chassis.openapi.described import Described
from chassis.openapi.document import Info, document
from chassis.openapi.inference import open_inference
from chassis.openapi.routes import routes

__all__ = ["Described", "Info", "document", "open_inference", "routes"]
