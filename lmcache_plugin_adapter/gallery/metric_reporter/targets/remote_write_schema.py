# SPDX-License-Identifier: Apache-2.0
"""The messages of Prometheus' remote write 1.0, built at run time: no package provides them.

Field numbers and types are those of ``prometheus.WriteRequest`` in the specification.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "prometheus"
_MESSAGES: dict[str, dict[str, Any]] = {
    "Label": {"name": _FIELD.TYPE_STRING, "value": _FIELD.TYPE_STRING},
    "Sample": {"value": _FIELD.TYPE_DOUBLE, "timestamp": _FIELD.TYPE_INT64},
    "TimeSeries": {"labels": "Label", "samples": "Sample"},
    "WriteRequest": {"timeseries": "TimeSeries"},
}
"""The fields of each message, in the order of their numbers; a name means repeated messages."""


def _write_request() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="lmcache_plugin_adapter/remote_write.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            if isinstance(kind, str):
                added = message.field.add(type=_FIELD.TYPE_MESSAGE, label=_FIELD.LABEL_REPEATED)
                added.type_name = f".{_PACKAGE}.{kind}"
            else:
                added = message.field.add(type=kind, label=_FIELD.LABEL_OPTIONAL)
            added.name, added.number = field, number
    pool = (
        descriptor_pool.DescriptorPool()
    )  # separate: another package may define these messages, too
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"{_PACKAGE}.WriteRequest")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)  # protobuf 4.21


WriteRequest = _write_request()
"""The class of the message in a request."""
