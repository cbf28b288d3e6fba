"""`penstock predict`: calls a model through the gateway."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_client.cli.context import CHOICE, client
from penstock_client.cli.output import Format, OutputOption, err, print_json, table
from penstock_client.errors import InvalidArgument, PenstockError

if TYPE_CHECKING:
    from penstock_client.inference import Face
    from penstock_client.prediction import Prediction

_CONCURRENCY = 8


@dataclass(frozen=True)
class Call:
    """What is asked, once or often."""

    model: str
    inputs: Any
    version: str | None
    face: Face
    timeout: float | None


def predict(
    model: Annotated[str, typer.Argument(help="PROJECT/MODEL", metavar="MODEL")],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            "-i",
            help="VALUE is JSON, or @FILE (.json, .npy, .npz), or @- for JSON from standard input. "
            "The name may be left out for a model with one input.",
            metavar="[NAME=]VALUE",
        ),
    ],
    version: Annotated[
        str | None, typer.Option("--version", help="This version; without it the route's weights choose.")
    ] = None,
    rest: Annotated[bool, typer.Option("--rest", help="Over REST instead of gRPC.")] = False,
    repeat: Annotated[
        int, typer.Option("--repeat", min=1, help="Call it so often, and show versions and times.")
    ] = 1,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds allowed for a call.", show_default=False)
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Call a model through the gateway and show its answer and the version that gave it."""
    arrays = _parse(inputs)
    call = Call(model, arrays, version, "rest" if rest else "grpc", timeout)
    if repeat > 1:
        _repeat(call, repeat, output)
        return
    with client("predict") as penstock:
        answer = penstock.predict(model, arrays, version=version, face=call.face, timeout=timeout)
    if output is Format.JSON:
        print(json.dumps(_document(answer)))
    else:
        print(f"{answer.model}  version {answer.version}")
        print()
        _show(answer)


def _show(answer: Prediction) -> None:
    import numpy as np

    from penstock_client.tensors import datatype_of

    rows = []
    for name, array in answer.outputs.items():
        with np.printoptions(threshold=40, edgeitems=3, precision=4, suppress=True, linewidth=100):
            text = np.array2string(array) if array.dtype.kind != "O" else str(_plain(array))
        rows.append(
            (name, datatype_of(array), list(array.shape), text if sys.stdout.isatty() else _line(text))
        )
    table(["output", "datatype", "shape", "value"], rows)


def _line(text: str) -> str:
    return " ".join(text.split())


def _plain(array: Any) -> Any:
    values = array.tolist()
    return json.loads(json.dumps(values, default=lambda item: item.decode(errors="replace")))


def _document(answer: Prediction) -> dict[str, Any]:
    from penstock_client.tensors import datatype_of

    return {
        "model": answer.model,
        "version": answer.version,
        "id": answer.id,
        "outputs": [
            {"name": name, "datatype": datatype_of(array), "shape": list(array.shape), "data": _plain(array)}
            for name, array in answer.outputs.items()
        ],
    }


def _parse(inputs: list[str]) -> Any:
    """A mapping of names to values, or the one value that came without a name."""
    named: dict[str, Any] = {}
    nameless: list[Any] = []
    for item in inputs:
        name, equals, rest = item.partition("=")
        if equals and name and not set(name) & set('@[{" '):
            named[name] = _value(rest, item)
            continue
        value = _value(item, item)
        if isinstance(value, Mapping):
            named.update(value)
        else:
            nameless.append(value)
    if nameless and (named or len(nameless) > 1):
        raise InvalidArgument("several inputs need names: --input NAME=VALUE", reason="INPUT_UNNAMED")
    return nameless[0] if nameless else named


def _value(text: str, item: str) -> Any:
    import numpy as np

    try:
        if not text.startswith("@"):
            return json.loads(text)
        if text == "@-":
            return json.loads(sys.stdin.read())
        content = Path(text[1:]).read_bytes()
        if text.endswith(".npz"):
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        return (
            np.load(io.BytesIO(content), allow_pickle=False) if text.endswith(".npy") else json.loads(content)
        )
    except FileNotFoundError:
        raise InvalidArgument(
            f"--input {item}: there is no file {text[1:]}", reason="FILE_NOT_FOUND"
        ) from None
    except (OSError, ValueError) as error:
        hint = "" if text.startswith("@") else "; write JSON, for example '[[0.5, 1]]', or @FILE"
        raise InvalidArgument(
            f"--input {item}: cannot read the value: {error}{hint}", reason="INPUT_INVALID"
        ) from error


def _repeat(call: Call, repeat: int, output: Format) -> None:
    with err().status(f"{repeat} calls"):
        versions, failures, times = asyncio.run(_call_often(call, repeat))
    milliseconds = {f"p{p}": _percentile(times, p) * 1000 for p in (50, 90, 99)} if times else {}
    if output is Format.JSON:
        print_json(
            {
                "calls": repeat,
                "versions": dict(versions),
                "failures": dict(failures),
                "milliseconds": milliseconds,
            }
        )
    else:
        rows = [(version, count, f"{count / repeat:.1%}") for version, count in sorted(versions.items())]
        rows += [(f"failed: {reason}", count, f"{count / repeat:.1%}") for reason, count in failures.items()]
        table(["version", "calls", "share"], rows)
        print()
        print("  ".join(f"{name} {value:.1f} ms" for name, value in milliseconds.items()))
    if failures:
        raise typer.Exit(1)


async def _call_often(call: Call, repeat: int) -> tuple[Counter[str], Counter[str], list[float]]:
    from penstock_client.client import AsyncClient
    from penstock_client.exporting import provider

    versions: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    times: list[float] = []
    left = iter(range(repeat))
    traces = provider(os.environ.get("PENSTOCK_TRACES", "off"))

    async with AsyncClient(profile=CHOICE.profile, tracer_provider=traces) as penstock:

        async def worker() -> None:
            for _ in left:
                begun = time.perf_counter()
                try:
                    answer = await penstock.predict(
                        call.model, call.inputs, version=call.version, face=call.face, timeout=call.timeout
                    )
                    versions[answer.version] += 1
                    times.append(time.perf_counter() - begun)
                except PenstockError as error:
                    failures[error.reason] += 1

        await asyncio.gather(*(worker() for _ in range(min(_CONCURRENCY, repeat))))
    if traces is not None:
        traces.shutdown()
    return versions, failures, times


def _percentile(times: list[float], percent: int) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
