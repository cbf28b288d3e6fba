"""Typed Python client of Penstock.

```python
from penstock_client import Client

with Client() as client:
    prediction = client.predict("digits/classifier", images)
```
"""

from penstock_client.client import AsyncClient, Client
from penstock_client.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    Code,
    DataLoss,
    DeadlineExceeded,
    DigestMismatch,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PenstockError,
    PermissionDenied,
    ResourceExhausted,
    RolloutFailed,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    UnknownError,
)
from penstock_client.prediction import ModelInfo, Prediction, TensorInfo
from penstock_client.retry import NO_RETRIES, RetryPolicy
from penstock_client.settings import Address, Settings, Tls, load

__all__ = [
    "NO_RETRIES",
    "Aborted",
    "Address",
    "AlreadyExists",
    "AsyncClient",
    "Cancelled",
    "Client",
    "Code",
    "DataLoss",
    "DeadlineExceeded",
    "DigestMismatch",
    "FailedPrecondition",
    "FieldViolation",
    "Internal",
    "InvalidArgument",
    "ModelInfo",
    "NotFound",
    "OutOfRange",
    "PenstockError",
    "PermissionDenied",
    "Prediction",
    "ResourceExhausted",
    "RetryPolicy",
    "RolloutFailed",
    "Settings",
    "TensorInfo",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UnknownError",
    "load",
]
