"""Protobuf messages to JSON bodies."""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.rpc import status_pb2

from chassis.rest import jsontext


class Encoder:
    """Writes the messages of one pool as JSON."""

    def __init__(
        self,
        pool: DescriptorPool,
        *,
        preserve_proto_field_names: bool = False,
        emit_default_values: bool = False,
        enums_as_integers: bool = False,
    ) -> None:
        self._pool = pool
        self._preserve = preserve_proto_field_names
        self._defaults = emit_default_values
        self._enum_numbers = enums_as_integers

    def message(self, message: Message) -> bytes:
        """The JSON of a message."""
        return jsontext.dumps(self._value(message, defaults=self._defaults))

    def field(self, message: Message, field: FieldDescriptor) -> bytes:
        """The JSON of one field of a message; a scalar, list or map that is not set is written as its
        default.
        """
        if field.message_type is not None and not field.is_repeated:
            return self.message(getattr(message, field.name))
        whole = self._value(message, defaults=True)
        return jsontext.dumps(whole[field.name if self._preserve else field.json_name])

    def _value(self, message: Message, *, defaults: bool) -> Any:
        return json_format.MessageToDict(
            message,
            always_print_fields_with_no_presence=defaults,
            preserving_proto_field_name=self._preserve,
            use_integers_for_enums=self._enum_numbers,
            descriptor_pool=self._pool,
        )

    def status(self, status: status_pb2.Status) -> bytes:
        """The JSON of a Status; a detail whose type nobody here knows keeps its type and bytes."""
        body: dict[str, Any] = {"code": status.code, "message": status.message}
        details = [self._detail(detail) for detail in status.details]
        if details:
            body["details"] = details
        return jsontext.dumps(body)

    def _detail(self, detail: Any) -> Any:
        for pool in (self._pool, descriptor_pool.Default()):
            try:
                return json_format.MessageToDict(detail, descriptor_pool=pool)
            except Exception:  # noqa: BLE001, S112 — json_format raises TypeError, KeyError or DecodeError here
                continue
        return {"@type": detail.type_url, "value": base64.b64encode(detail.value).decode()}
