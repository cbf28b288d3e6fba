"""Seconds as values ↔ Timestamp and Duration as messages."""

from google.protobuf import duration_pb2, timestamp_pb2


def to_timestamp(seconds: float | None) -> timestamp_pb2.Timestamp | None:
    """Seconds since the epoch; None stays away."""
    if seconds is None:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def to_duration(seconds: float | None) -> duration_pb2.Duration | None:
    """Seconds; None stays away."""
    if seconds is None:
        return None
    duration = duration_pb2.Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


def from_duration(message: duration_pb2.Duration) -> float:
    """Seconds."""
    return message.ToNanoseconds() / 1e9
