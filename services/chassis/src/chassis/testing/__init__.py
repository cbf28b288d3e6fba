"""Testing aids for services built on the chassis: run one in process or as a child, virtual time, free
ports.
"""

from chassis.testing.clock import FakeClock
from chassis.testing.ports import free_port
from chassis.testing.process import ServiceProcess, service_process
from chassis.testing.running import RunningService, running
from chassis.testing.spans import SpanRecorder, recording_telemetry

__all__ = [
    "FakeClock",
    "RunningService",
    "ServiceProcess",
    "SpanRecorder",
    "free_port",
    "recording_telemetry",
    "running",
    "service_process",
]
