"""protovalidate: requests against the `buf.validate` rules of the contract, before any of our code sees
them.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import protovalidate
from google.protobuf.message import Message

from chassis import errors
from chassis.errors import FieldViolation
from chassis.interceptors.chain import Context, MethodInfo, StreamBehaviour, UnaryBehaviour


class ValidationInterceptor:
    """Violations become InvalidArgument with one field violation each, its path in contract names."""

    def __init__(self, validator: protovalidate.Validator | None = None) -> None:
        self._validator = validator or protovalidate.Validator()

    def unary(self, method: MethodInfo, proceed: UnaryBehaviour) -> UnaryBehaviour:
        """Validates the message, or each message of the request stream as it comes."""

        async def behave(request: Any, context: Context) -> Any:
            return await proceed(self._validated(request, method), context)

        return behave

    def stream(self, method: MethodInfo, proceed: StreamBehaviour) -> StreamBehaviour:
        """Validates the message, or each message of the request stream as it comes."""

        async def behave(request: Any, context: Context) -> AsyncIterator[Any]:
            async for item in proceed(self._validated(request, method), context):
                yield item

        return behave

    def _validated(self, request: Any, method: MethodInfo) -> Any:
        if method.request_streaming:
            return self._each(request)
        self.check(request)
        return request

    async def _each(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            self.check(request)
            yield request

    def check(self, message: Message) -> None:
        """Raises InvalidArgument when a message breaks its contract's rules."""
        found = self._validator.collect_violations(message)
        if found:
            violations = [
                FieldViolation(
                    _path(v.proto.field.elements if v.proto.field else ()), v.proto.message, v.proto.rule_id
                )
                for v in found
            ]
            raise errors.InvalidArgument(
                f"the request is not valid: {violations[0].field or 'request'}: {violations[0].description}",
                reason="REQUEST_INVALID",
                violations=violations,
            )


def _path(elements: Sequence[Any]) -> str:
    """`route.targets[0].weight`, `labels["a"]`: names and subscripts as the contract has them."""
    path = ""
    for element in elements:
        path += f".{element.field_name}" if path else element.field_name
        subscript = element.subscript
        if subscript is not None:
            value = subscript.value
            path += f'["{value}"]' if subscript.field == "string_key" else f"[{value}]"
    return path
