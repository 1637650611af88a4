"""What it looks like when the database is away or a disk is full, and how an error is said in one line."""

from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError

from store.local_blobs import FULL

DATABASE_UNREACHABLE = (OperationalError, InterfaceError, TimeoutError)
_FULL_ELSEWHERE = tuple(f"(os error {number})" for number in FULL)  # as libraries written in Rust say it


def is_disk_full(error: Exception) -> bool:
    return (isinstance(error, OSError) and error.errno in FULL) or str(error).endswith(_FULL_ELSEWHERE)


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
