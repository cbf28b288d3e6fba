"""What the Open Inference Protocol says about models: metadata, configuration, statistics, index."""

from collections.abc import Sequence

from inference import grpc_service_pb2 as pb
from inference import model_config_pb2 as config

from mds.app.batcher import DEFAULT_QUEUE
from mds.app.model import ServedModel, State
from mds.domain.signature import TensorSpec
from mds.domain.tensors import DataType

_PLATFORMS = {"onnx": "onnxruntime_onnx", "torch": "pytorch_libtorch", "python": "python"}
_BACKENDS = {"onnx": "onnxruntime", "torch": "pytorch", "python": "python"}


def _tensor(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.dtype.value, shape=spec.shape
    )


def model_metadata(model: ServedModel, name: str) -> pb.ModelMetadataResponse:
    """Inputs and outputs, under the name that was asked for."""
    framework = model.manifest.framework
    return pb.ModelMetadataResponse(
        name=name,
        versions=[model.version],
        platform=_PLATFORMS.get(framework, framework),
        inputs=[_tensor(spec) for spec in model.signature.inputs],
        outputs=[_tensor(spec) for spec in model.signature.outputs],
    )


def _config_type(kind: DataType) -> "config.DataType.ValueType":
    name = "TYPE_STRING" if kind is DataType.BYTES else f"TYPE_{kind.value}"
    return config.DataType.Value(name)


def model_config(model: ServedModel, name: str) -> config.ModelConfig:
    """How the model is served, in Triton's terms: with batching on, the batch dimension is left out of
    shapes.
    """
    batching = model.batching
    manifest = model.manifest
    batches = model.joins and batching.max_items > 1
    skip = 1 if batches else 0
    gpu = bool(model.instances) and model.instances[0].device.startswith("cuda")
    group = config.ModelInstanceGroup(
        name=f"{model.name}_0",
        kind=config.ModelInstanceGroup.KIND_GPU if gpu else config.ModelInstanceGroup.KIND_CPU,
        count=model.execution.instances,
        gpus=[0] if gpu else [],
    )
    result = config.ModelConfig(
        name=name,
        platform=_PLATFORMS.get(manifest.framework, manifest.framework),
        backend=_BACKENDS.get(manifest.framework, manifest.framework),
        max_batch_size=batching.max_items if batches else 0,
        input=[
            config.ModelInput(
                name=s.name, data_type=_config_type(s.dtype), dims=s.shape[skip:], optional=s.optional
            )
            for s in model.signature.inputs
        ],
        output=[
            config.ModelOutput(name=s.name, data_type=_config_type(s.dtype), dims=s.shape[skip:])
            for s in model.signature.outputs
        ],
        instance_group=[group],
        default_model_filename=manifest.model_file,
        model_transaction_policy=config.ModelTransactionPolicy(decoupled=False),
    )
    result.parameters["penstock_digest"].string_value = model.digest
    for key, value in model.execution.options.items():
        result.parameters[key].string_value = value
    if batches:
        result.dynamic_batching.max_queue_delay_microseconds = round(batching.max_delay * 1e6)
        policy = result.dynamic_batching.default_queue_policy
        policy.allow_timeout_override = True
        policy.max_queue_size = batching.max_queue or DEFAULT_QUEUE
    return result


def _duration(count: int, nanoseconds: int) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=nanoseconds)


def model_statistics(model: ServedModel, name: str) -> pb.ModelStatistics:
    """Counts and times since the model was loaded."""
    s = model.statistics
    runs = s.executions
    return pb.ModelStatistics(
        name=name,
        version=model.version,
        last_inference=int(s.last_request * 1000),
        inference_count=s.items,
        execution_count=runs,
        inference_stats=pb.InferStatistics(
            success=_duration(s.succeeded, s.success_ns),
            fail=_duration(sum(s.failed.values()), s.fail_ns),
            queue=_duration(s.requests, s.queue_ns),
            compute_input=_duration(runs, s.preprocess_ns),
            compute_infer=_duration(runs, s.inference_ns),
            compute_output=_duration(runs, s.postprocess_ns),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=size,
                compute_input=_duration(batch.count, batch.preprocess_ns),
                compute_infer=_duration(batch.count, batch.inference_ns),
                compute_output=_duration(batch.count, batch.postprocess_ns),
            )
            for size, batch in sorted(s.batches.items())
        ],
    )


def repository_index(models: Sequence[ServedModel], *, only_ready: bool) -> pb.RepositoryIndexResponse:
    """The models of this server, and their states in Triton's words."""
    states = {State.FAILED: "UNAVAILABLE"}
    return pb.RepositoryIndexResponse(
        models=[
            pb.RepositoryIndexResponse.ModelIndex(
                name=model.name,
                version=model.version,
                state=states.get(model.state, model.state.value),
                reason=model.reason,
            )
            for model in models
            if model.batcher is not None or not only_ready
        ]
    )
