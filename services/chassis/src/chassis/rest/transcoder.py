"""From an HTTP request to the request messages of a method, and from its answers to HTTP bodies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from chassis import errors
from chassis.errors import FieldViolation
from chassis.rest import jsontext, mask, media, problem, query, router
from chassis.rest.bindings import Binding
from chassis.rest.decode import Decoder, invalid_fields
from chassis.rest.descriptors import message_of
from chassis.rest.encode import Encoder
from chassis.rest.inbound import Inbound
from chassis.rest.query import QueryBinder

_JSON_WANTED = f"{media.JSON} in UTF-8"
_STREAM_WANTED = f"{media.NDJSON} or {media.JSON} in UTF-8"


@dataclass(frozen=True, slots=True)
class Incoming:
    """What of an HTTP request makes a message: raw path segments, raw query, content type ("" when none is
    given).
    """

    segments: list[str]
    query: bytes
    content_type: str


class Transcoder:
    """Converts the requests and answers of one binding."""

    def __init__(
        self,
        binding: Binding,
        decoder: Decoder,
        encoder: Encoder,
        ignored_query: frozenset[str] = frozenset(),
    ) -> None:
        self.binding = binding
        self._decoder = decoder
        self._encoder = encoder
        self._query = QueryBinder(binding, ignored=ignored_query)
        body = binding.body
        self._masked = binding.http_method == "PATCH" and body is not None and body.message_type is not None
        prefix = f"{body.name}." if body is not None else ""
        names = (variable.name for variable in binding.variables)
        self._bound_in_body = frozenset(
            name.removeprefix(prefix) for name in names if name.startswith(prefix)
        )

    async def request(self, incoming: Incoming, inbound: Inbound) -> bytes:
        """The one request message, serialised. Raises `errors.InvalidArgument` or `problem.HttpFailure`."""
        body = await inbound.read()
        message = self.binding.method.request()
        given = self._read_body(body, incoming.content_type, message)
        self._query.bind(incoming.query, message)
        self._set_path(incoming, message)
        if self._masked and isinstance(given, dict):
            self._fill_mask(given, message)
        return message.SerializeToString()

    async def requests(self, incoming: Incoming, inbound: Inbound) -> AsyncIterator[bytes]:
        """The request messages of a client-streaming method.

        Each JSON text of the body is one message (lines of NDJSON as they arrive, or one JSON array); of an
        HttpBody, each chunk is one. Path and query fields are set on the first message of an HttpBody and on
        every JSON one.
        """
        binding = self.binding
        if binding.raw_request:
            async for message in self._raw_messages(incoming, inbound):
                yield message.SerializeToString()
            return
        if media.is_ndjson(incoming.content_type):
            texts = inbound.lines()
        elif not incoming.content_type or media.is_json(incoming.content_type):
            texts = _texts(await inbound.read())
        else:
            raise problem.unsupported_media_type(incoming.content_type, _STREAM_WANTED)
        number = 0
        async for text in texts:
            number += 1
            message = binding.method.request()
            self._merge_json(jsontext.loads(text, f"message {number} of the request body"), message)
            self._query.bind(incoming.query, message)
            self._set_path(incoming, message)
            yield message.SerializeToString()

    def answer(self, payload: bytes) -> tuple[str, bytes]:
        """Content type and body of one answer."""
        binding = self.binding
        message = binding.method.response.FromString(payload)
        if binding.raw_response:
            holder = self._holder(message, binding.response_body)
            return holder.content_type or "application/octet-stream", holder.data
        if binding.response_body is not None:
            return media.JSON, self._encoder.field(message, binding.response_body)
        return media.JSON, self._encoder.message(message)

    def _read_body(self, body: bytes, content_type: str, message: Message) -> object:
        """Merge the HTTP body into the request; returns the JSON value, None when there was none."""
        binding = self.binding
        if binding.raw_request:
            self._set_raw(message, content_type, body)
            return None
        if not body.strip():
            return None
        if not binding.takes_body:
            if body.strip() == b"{}":
                return None
            raise errors.InvalidArgument(
                f"{binding.http_method} {binding.template.text} takes no request body",
                reason="UNEXPECTED_BODY",
            )
        if content_type and not media.is_json(content_type):
            raise problem.unsupported_media_type(content_type, _JSON_WANTED)
        value = jsontext.loads(body)
        self._merge_json(value, message)
        return value

    def _merge_json(self, value: object, message: Message) -> None:
        if self.binding.body is None:
            self._decoder.message(value, message)
        else:
            self._decoder.field(value, message, self.binding.body)

    def _set_raw(self, message: Message, content_type: str, data: bytes) -> None:
        holder = self._holder(message, self.binding.body)
        holder.content_type = content_type
        holder.data = data

    @staticmethod
    def _holder(message: Message, field: FieldDescriptor | None) -> Any:
        """The HttpBody: the message itself or one of its fields."""
        return message if field is None else getattr(message, field.name)

    async def _raw_messages(self, incoming: Incoming, inbound: Inbound) -> AsyncIterator[Message]:
        first = self.binding.method.request()
        self._query.bind(incoming.query, first)
        self._set_path(incoming, first)
        message: Message | None = first
        async for chunk in inbound.chunks():
            message = message or self.binding.method.request()
            self._set_raw(message, incoming.content_type, chunk)
            yield message
            message = None
        if message is not None:
            self._set_raw(message, incoming.content_type, b"")
            yield message

    def _set_path(self, incoming: Incoming, message: Message) -> None:
        for variable in self.binding.variables:
            try:
                text = router.capture(variable.variable, incoming.segments)
                query.set_path(message, variable.fields, text)
            except UnicodeDecodeError as error:
                problem_text = "the path is not percent-encoded UTF-8"
                raise invalid_fields(
                    [FieldViolation(variable.name, problem_text, "MALFORMED_PATH")]
                ) from error
            except ValueError as error:
                raise invalid_fields([FieldViolation(variable.name, str(error), "INVALID_VALUE")]) from error

    def _fill_mask(self, given: dict[str, object], message: Message) -> None:
        update_mask = self.binding.method.update_mask
        body = self.binding.body
        assert body is not None
        if update_mask is None or message.HasField(update_mask.name):
            return
        found = mask.paths(given, message_of(body), self._decoder.names, self._bound_in_body)
        getattr(message, update_mask.name).paths.extend(found)


async def _texts(body: bytes) -> AsyncIterator[bytes]:
    """The JSON texts of a body that is an array, or texts on lines of their own."""
    stripped = body.strip()
    if stripped.startswith(b"["):
        for item in jsontext.loads(body):
            yield jsontext.dumps(item)
    else:
        for line in stripped.split(b"\n"):
            if line.strip():
                yield line
