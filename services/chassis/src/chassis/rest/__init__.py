"""The REST transcoder: any gRPC service as JSON over HTTP, as its ``google.api.http`` annotations say.

    from chassis import rest

    backend = rest.InProcess(interceptors=interceptors)      # or rest.Remote(channel)
    backend.add_servicer(add_GreeterServicer_to_server, Greeter())
    app = rest.asgi(descriptor_set, ["example.v1.Greeter"], backend)

The application is plain ASGI: serve it with uvicorn or mount it in Starlette. docs/rest.md tells every rule.
"""

from chassis.rest.application import Options, asgi
from chassis.rest.bindings import BindingError
from chassis.rest.descriptors import Descriptors, load_pool, penstock_descriptors
from chassis.rest.inprocess import InProcess
from chassis.rest.port import Backend, Call, RpcFailure
from chassis.rest.remote import Remote
from chassis.rest.router import RouteConflict
from chassis.rest.template import TemplateError

__all__ = [
    "Backend",
    "BindingError",
    "Call",
    "Descriptors",
    "InProcess",
    "Options",
    "Remote",
    "RouteConflict",
    "RpcFailure",
    "TemplateError",
    "asgi",
    "load_pool",
    "penstock_descriptors",
]
