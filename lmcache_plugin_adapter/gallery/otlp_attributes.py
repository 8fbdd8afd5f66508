# SPDX-License-Identifier: Apache-2.0
"""Attributes in the protobuf messages of OTLP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

if TYPE_CHECKING:
    from collections.abc import Mapping


def key_values(attributes: Mapping[str, str | int]) -> list[KeyValue]:
    """Return attributes as OTLP's key-value pairs; integers stay integers."""
    return [
        KeyValue(
            key=key,
            value=AnyValue(int_value=value)
            if isinstance(value, int)
            else AnyValue(string_value=value),
        )
        for key, value in attributes.items()
    ]
