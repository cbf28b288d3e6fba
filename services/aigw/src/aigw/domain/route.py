"""A route: the desired state of one model's traffic, with the rules that make a declaration valid."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from chassis import errors
from chassis.errors import Code, FieldViolation

MAX_WEIGHT = 1_000_000

RETRYABLE = frozenset(
    {
        Code.UNAVAILABLE,
        Code.RESOURCE_EXHAUSTED,
        Code.ABORTED,
        Code.INTERNAL,
        Code.UNKNOWN,
        Code.DATA_LOSS,
    }
)
"""Codes that a policy may ask to be tried again: the others are the caller's doing or final."""


@dataclass(frozen=True, slots=True)
class Target:
    """One version and its share. `labels` select among its endpoints."""

    version: str
    weight: int
    labels: Mapping[str, str] = field(default_factory=dict)

    def accepts(self, labels: Mapping[str, str]) -> bool:
        """Whether an endpoint with these labels serves this target."""
        return all(labels.get(key) == value for key, value in self.labels.items())


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is made again. Seconds and percent; 0 or empty means the default."""

    max_attempts: int = 0
    codes: tuple[Code, ...] = ()
    per_try_timeout: float = 0.0
    budget_percent: float = 0.0
    budget_min_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class EjectionPolicy:
    """When a replica is put aside. Seconds; 0 means the default."""

    consecutive_failures: int = 0
    base_ejection: float = 0.0
    max_ejection: float = 0.0
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """How calls are treated on their way. `timeout` in seconds, 0 means the default."""

    timeout: float = 0.0
    retry: RetryPolicy = RetryPolicy()
    ejection: EjectionPolicy = EjectionPolicy()
    divert_unready: bool = True


DEFAULT_POLICY = RoutePolicy(
    timeout=60.0,
    retry=RetryPolicy(
        max_attempts=3,
        codes=(Code.UNAVAILABLE,),
        per_try_timeout=0.0,
        budget_percent=20.0,
        budget_min_per_second=10.0,
    ),
    ejection=EjectionPolicy(consecutive_failures=5, base_ejection=1.0, max_ejection=30.0),
)
"""What a route that says nothing gets."""


def effective_policy(declared: RoutePolicy, defaults: RoutePolicy = DEFAULT_POLICY) -> RoutePolicy:
    """The declared policy with the defaults in the places where it says nothing."""
    retry, ejection = declared.retry, declared.ejection
    return RoutePolicy(
        timeout=declared.timeout or defaults.timeout,
        retry=RetryPolicy(
            max_attempts=retry.max_attempts or defaults.retry.max_attempts,
            codes=retry.codes or defaults.retry.codes,
            per_try_timeout=retry.per_try_timeout or defaults.retry.per_try_timeout,
            budget_percent=retry.budget_percent or defaults.retry.budget_percent,
            budget_min_per_second=retry.budget_min_per_second or defaults.retry.budget_min_per_second,
        ),
        ejection=EjectionPolicy(
            consecutive_failures=ejection.consecutive_failures or defaults.ejection.consecutive_failures,
            base_ejection=ejection.base_ejection or defaults.ejection.base_ejection,
            max_ejection=ejection.max_ejection or defaults.ejection.max_ejection,
            disabled=ejection.disabled or defaults.ejection.disabled,
        ),
        divert_unready=declared.divert_unready,
    )


@dataclass(frozen=True, slots=True)
class Route:
    """Desired state of one model's traffic. Times are seconds since the epoch."""

    project: str
    route: str
    targets: tuple[Target, ...]
    policy: RoutePolicy = RoutePolicy()
    annotations: Mapping[str, str] = field(default_factory=dict)
    uid: str = ""
    generation: int = 0
    create_time: float = 0.0
    update_time: float = 0.0
    updater: str = ""

    @property
    def key(self) -> str:
        """What callers say: `project/model`."""
        return f"{self.project}/{self.route}"

    @property
    def name(self) -> str:
        """Resource name."""
        return f"projects/{self.project}/routes/{self.route}"

    @property
    def etag(self) -> str:
        """Changes with every change of the desired state."""
        return f'"{self.uid[:12]}-{self.generation}"'

    def same_desire(self, other: "Route") -> bool:
        """Whether both declare the same."""
        return (
            self.targets == other.targets
            and self.policy == other.policy
            and dict(self.annotations) == dict(other.annotations)
        )


@dataclass(frozen=True, slots=True)
class Change:
    """Who changed a route, why, and in which trace."""

    creator: str = ""
    reason: str = ""
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The desired state at one generation, and where it came from."""

    route: Route
    change: Change


def check_route(route: Route) -> None:
    """Raises InvalidArgument with every violation of a declaration, each with its field."""
    violations = [*_target_violations(route.targets), *_policy_violations(route.policy)]
    if violations:
        first = violations[0]
        raise errors.InvalidArgument(
            f"the route {route.name} is not valid: {first.field}: {first.description}"
            + (f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""),
            reason="ROUTE_INVALID",
            metadata={"route": route.name},
            violations=violations,
        )


def _target_violations(targets: tuple[Target, ...]) -> list[FieldViolation]:
    if not targets:
        return [FieldViolation("route.targets", "at least one version is needed", "TARGETS_EMPTY")]
    found = []
    seen: dict[str, int] = {}
    for index, target in enumerate(targets):
        if target.version in seen:
            text = f"version {target.version} is already named by targets[{seen[target.version]}]"
            found.append(FieldViolation(f"route.targets[{index}].version", text, "VERSION_DUPLICATE"))
        seen.setdefault(target.version, index)
        if not 0 <= target.weight <= MAX_WEIGHT:
            text = f"a weight is from 0 to {MAX_WEIGHT}, not {target.weight}"
            found.append(FieldViolation(f"route.targets[{index}].weight", text, "WEIGHT_OUT_OF_RANGE"))
    if not found and all(target.weight == 0 for target in targets):
        text = (
            "all weights are 0, so no version would answer calls that name none; "
            "give at least one version a weight above 0, or delete the route"
        )
        found.append(FieldViolation("route.targets", text, "WEIGHTS_ALL_ZERO"))
    return found


def _policy_violations(policy: RoutePolicy) -> list[FieldViolation]:
    found = []
    allowed = ", ".join(sorted(code.name for code in RETRYABLE))
    for index, code in enumerate(policy.retry.codes):
        if code not in RETRYABLE:
            text = f"{code.name} is not safe or not useful to try again; possible are {allowed}"
            found.append(FieldViolation(f"route.policy.retry.codes[{index}]", text, "CODE_NOT_RETRYABLE"))
    base, longest = policy.ejection.base_ejection, policy.ejection.max_ejection
    if base and longest and base > longest:
        text = f"must not exceed max_ejection ({longest:g} s), is {base:g} s"
        found.append(FieldViolation("route.policy.outlier_ejection.base_ejection", text, "EJECTION_RANGE"))
    return found


def set_weights(
    targets: tuple[Target, ...], weights: Mapping[str, int], *, prune: bool
) -> tuple[Target, ...]:
    """The targets with a whole new set of weights: unnamed ones get 0 or go, unknown ones are added at the
    end.
    """
    kept = [
        Target(target.version, weights.get(target.version, 0), target.labels)
        for target in targets
        if target.version in weights or not prune
    ]
    known = {target.version for target in targets}
    added = [Target(version, weight) for version, weight in weights.items() if version not in known]
    return (*kept, *added)
