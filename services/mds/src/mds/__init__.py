"""MDS: packages models and serves them. This module is the modeler's face; importing it needs no gRPC and
no framework.
"""

from mds.domain.execution import Accelerator, Batching
from mds.domain.signature import OutputTolerance, TensorSpec
from mds.domain.tensors import DataType
from mds.sdk.context import BadInput, LoadContext
from mds.sdk.decorators import DeclarationError, inference, load, postprocess, preprocess, serving

__all__ = [
    "Accelerator",
    "BadInput",
    "Batching",
    "DataType",
    "DeclarationError",
    "LoadContext",
    "OutputTolerance",
    "TensorSpec",
    "inference",
    "load",
    "postprocess",
    "preprocess",
    "serving",
]
