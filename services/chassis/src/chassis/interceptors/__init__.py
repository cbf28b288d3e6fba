"""What every control-plane RPC passes through, whichever face it came in by.

gRPC runs server interceptors for every call of a server, and each costs tens of microseconds; the data path
must not pay that. So the chassis applies its interceptors to the handlers of control-plane services when
they are registered: an `Interceptor` wraps a handler's behaviour once, and no chain is built per call. The
REST face calls the same wrapped handlers in process.

Order, outermost first: errors onto the wire, observation (span, metrics, log), drain, authentication,
deadline, validation, then the servicer.
"""

from chassis.interceptors.authentication import AuthenticationInterceptor
from chassis.interceptors.chain import Behaviour, Interceptor, MethodInfo, intercepted
from chassis.interceptors.deadline import DeadlineInterceptor
from chassis.interceptors.drain import DrainInterceptor
from chassis.interceptors.errors import ErrorInterceptor
from chassis.interceptors.observation import ObservationInterceptor
from chassis.interceptors.validation import ValidationInterceptor

__all__ = [
    "AuthenticationInterceptor",
    "Behaviour",
    "DeadlineInterceptor",
    "DrainInterceptor",
    "ErrorInterceptor",
    "Interceptor",
    "MethodInfo",
    "ObservationInterceptor",
    "ValidationInterceptor",
    "intercepted",
]
