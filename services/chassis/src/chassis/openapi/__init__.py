"""OpenAPI 3.1 from gRPC descriptors, and a page to read and try it.

from chassis import openapi

openapi.document(descriptor_set, ["example.v1.Greeter"], openapi.Info(title="Greeter", version="1"))
openapi.routes(...)     # Starlette routes for /openapi.json and /docs
"""

from chassis.openapi.document import Info, document
from chassis.openapi.routes import routes

__all__ = ["Info", "document", "routes"]
