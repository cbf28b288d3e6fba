"""TrafficService: what this version answers is the recent traffic of a route."""

from typing import Any, NoReturn

from chassis import errors
from chassis.clock import Clock
from penstock.aigw.v1 import traffic_service_pb2 as pb
from penstock.aigw.v1 import traffic_service_pb2_grpc

from aigw.api import convert
from aigw.app.catalog import RouteCatalog
from aigw.domain import names
from aigw.domain.traffic import TrafficLog


class TrafficServicer(traffic_service_pb2_grpc.TrafficServiceServicer):
    """Traffic as the contract tells it."""

    def __init__(self, traffic: TrafficLog, catalog: RouteCatalog, clock: Clock) -> None:
        self._traffic = traffic
        self._catalog = catalog
        self._clock = clock

    async def QueryTraffic(self, request: pb.QueryTrafficRequest, context: Any) -> pb.QueryTrafficResponse:
        """See the contract."""
        route = self._catalog.get(*names.split_route_name(request.route, "route"))
        start = request.start_time.ToMicroseconds() / 1e6 if request.HasField("start_time") else None
        end = request.end_time.ToMicroseconds() / 1e6 if request.HasField("end_time") else None
        if start is not None and end is not None and end < start:
            text = "end_time is before start_time"
            raise errors.InvalidArgument(
                text,
                reason="TIME_RANGE_INVALID",
                violations=[errors.FieldViolation("end_time", text, "TIME_RANGE_INVALID")],
            )
        traffic = self._traffic.query(
            route.key,
            self._clock.time(),
            start=start,
            end=end,
            step=convert.seconds(request.step) if request.HasField("step") else None,
            version=request.version,
        )
        return convert.traffic_message(traffic)

    async def QueryAccessLog(self, request: pb.QueryAccessLogRequest, context: Any) -> NoReturn:
        """Not in this version."""
        raise not_available("Querying the access log", "the access log itself is written as JSON lines")

    async def GetMirrorReport(self, request: pb.GetMirrorReportRequest, context: Any) -> NoReturn:
        """Not in this version."""
        raise not_available("Mirroring")

    async def ListAnomalies(self, request: pb.ListAnomaliesRequest, context: Any) -> NoReturn:
        """Not in this version."""
        raise not_available("Anomaly detection")

    async def GetAnomaly(self, request: pb.GetAnomalyRequest, context: Any) -> NoReturn:
        """Not in this version."""
        raise not_available("Anomaly detection")

    async def AcknowledgeAnomaly(self, request: pb.AcknowledgeAnomalyRequest, context: Any) -> NoReturn:
        """Not in this version."""
        raise not_available("Anomaly detection")


def not_available(what: str, instead: str = "") -> errors.Unimplemented:
    """The answer of methods that the contract has and this version has not."""
    return errors.Unimplemented(
        f"{what} is not available in this version of Penstock" + (f"; {instead}" if instead else ""),
        reason="NOT_AVAILABLE",
    )
