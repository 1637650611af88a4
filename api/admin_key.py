"""``vitpress admin-key``, or ``python -m api.admin_key``: one more admin key, for whoever holds the database.

It talks to the database alone, by ``VITPRESS_DATABASE_URL``, and needs no server. The key is all that it prints.
"""

import re
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import OperationalError, ProgrammingError

from api.schemas_identity import NAME
from core.errors import first_line
from store import keys
from store.session import engine, transaction
from store.settings import Settings


def admin_key(
    owner: Annotated[str, typer.Option(help="Whose key it will be; made if there is none of that name.")] = (
        keys.FIRST_OWNER
    ),
    data_dir: Annotated[Path | None, typer.Option(help="As given to `vitpress up`.")] = None,
) -> None:
    """Make a further admin key in the database, and print it."""
    if not re.fullmatch(NAME, owner):
        raise typer.BadParameter(f"expected letters, digits, '.', '_' or '-', got {owner!r}", param_hint="--owner")
    settings = Settings() if data_dir is None else Settings(data_dir=data_dir)
    database = engine(settings)
    try:
        with transaction(database) as session:
            key = keys.further_admin(session, owner)
    except (OperationalError, ProgrammingError) as error:  # no server, or no tables
        typer.echo(f"no vitpress database there: {first_line(error.orig or error)}", err=True)
        raise typer.Exit(1) from error
    finally:
        database.dispose()
    typer.echo(key)


if __name__ == "__main__":
    typer.run(admin_key)
