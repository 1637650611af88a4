"""What columns are made of: ids, moments, words of a list, and JSON; the same on every database."""

import os
import time
import uuid
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import JSON, DateTime, Dialect, Enum, TypeDecorator


def uuid7() -> str:
    """A time-ordered UUID (RFC 9562, 6.2 method 3: the 12 bits after the milliseconds are sub-millisecond time)."""
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    random = int.from_bytes(os.urandom(8)) >> 2
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 0b10 << 62 | random))


class UtcDateTime(TypeDecorator[datetime]):
    """SQLite has no time zones: there the value is stored as naive UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def one_of(values: type[StrEnum], name: str) -> Enum:
    """As text under a named CHECK: a native enum cannot lose a member in a migration."""
    return Enum(
        values,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


Json = JSON(none_as_null=True)
