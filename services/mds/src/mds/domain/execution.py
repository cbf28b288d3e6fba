"""How a model is run: batching and execution settings of a package."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Batching:
    """How requests are put together: a batch is what waits when a worker becomes free, up to `max_items`.

    `max_items` counts indexes of the first dimension; 0 runs requests one by one. `max_delay` (seconds) is
    how long a free worker waits for more items; 0 means never: batches then form only under load, and no
    request is delayed. `max_queue` requests may wait, one more is refused at once; 0 means the server's
    default (256).
    """

    max_items: int = 0
    max_delay: float = 0.0
    max_queue: int = 0

    def __post_init__(self) -> None:
        for name in ("max_items", "max_queue"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1_000_000:
                raise ValueError(f"batching {name} must be a whole number from 0 to 1000000, not {value!r}")
        if not isinstance(self.max_delay, int | float) or not 0 <= self.max_delay <= 60:
            raise ValueError(f"batching max_delay must be 0 to 60 seconds, not {self.max_delay!r}")
        if self.max_delay and self.max_items < 2:
            raise ValueError("batching max_delay needs max_items of at least 2")


class Accelerator(enum.Enum):
    """Where a model can run."""

    CPU = "cpu"
    GPU_PREFERRED = "gpu-preferred"
    GPU_REQUIRED = "gpu-required"


@dataclass(frozen=True, slots=True)
class Execution:
    """How one replica runs the model.

    `instances` copies run at the same time, each in a thread of its own; `threads` is the number within one
    run (0: the server's default, 1). `gpu_memory_bytes` is what a replica needs of a GPU, 0 if unknown.
    `options` are the runtime's own settings.
    """

    instances: int = 1
    threads: int = 0
    accelerator: Accelerator = Accelerator.CPU
    gpu_memory_bytes: int = 0
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.instances, int) or not 1 <= self.instances <= 64:
            raise ValueError(f"execution instances must be 1 to 64, not {self.instances!r}")
        if not isinstance(self.threads, int) or not 0 <= self.threads <= 1024:
            raise ValueError(f"execution threads must be 0 to 1024, not {self.threads!r}")
        if not isinstance(self.gpu_memory_bytes, int) or self.gpu_memory_bytes < 0:
            raise ValueError(f"execution gpu_memory_bytes must be 0 or more, not {self.gpu_memory_bytes!r}")
