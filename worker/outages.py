"""What it looks like when the database is away or a disk is full."""

from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError

from store.local_blobs import FULL

DATABASE_UNREACHABLE = (OperationalError, InterfaceError, TimeoutError)
_FULL_ELSEWHERE = tuple(f"(os error {number})" for number in FULL)  # as libraries written in Rust say it


def is_disk_full(error: Exception) -> bool:
    return (isinstance(error, OSError) and error.errno in FULL) or str(error).endswith(_FULL_ELSEWHERE)
