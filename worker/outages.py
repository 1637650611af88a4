"""What it looks like when the database is away, and how an error is said in one line."""

from sqlalchemy.exc import InterfaceError, OperationalError

DATABASE_UNREACHABLE = (OperationalError, InterfaceError)


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
