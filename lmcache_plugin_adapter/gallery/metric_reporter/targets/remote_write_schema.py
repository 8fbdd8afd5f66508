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
_MESSAGES: dict[str, tuple[tuple[str, int, Any, Any, str], ...]] = {
    "Label": (
        ("name", 1, _FIELD.TYPE_STRING, _FIELD.LABEL_OPTIONAL, ""),
        ("value", 2, _FIELD.TYPE_STRING, _FIELD.LABEL_OPTIONAL, ""),
    ),
    "Sample": (
        ("value", 1, _FIELD.TYPE_DOUBLE, _FIELD.LABEL_OPTIONAL, ""),
        ("timestamp", 2, _FIELD.TYPE_INT64, _FIELD.LABEL_OPTIONAL, ""),
    ),
    "TimeSeries": (
        ("labels", 1, _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, "Label"),
        ("samples", 2, _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, "Sample"),
    ),
    "WriteRequest": (("timeseries", 1, _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, "TimeSeries"),),
}


def _write_request() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="lmcache_plugin_adapter/remote_write.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label, of in fields:
            message.field.add(
                name=field,
                number=number,
                type=kind,
                label=label,
                type_name=f".{_PACKAGE}.{of}" if of else None,
            )
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
