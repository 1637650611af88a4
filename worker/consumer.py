"""What listens to the broker. Whatever lies in its queues, of us or of others, the worker outlives it."""

from collections.abc import Callable
from functools import partial, wraps
from queue import Empty
from typing import Any

import structlog
from celery.worker import consumer
from kombu.message import Message

from worker.app import BROKER_SECONDS, draining

log = structlog.get_logger(__name__)

# Workers know each other from the database. Celery's own ways to tell of each other, every two seconds, would have the
# worker wait for minutes for a broker that hangs, and not even hear SIGTERM meanwhile.
ALONE = dict.fromkeys(("without_gossip", "without_mingle", "without_heartbeat"), True)


class Consumer(consumer.Consumer):  # type: ignore[misc]  # Celery ships no types
    """Celery's own ends at a message that has no envelope, or no arguments to speak of: that is no broker's error."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options, **ALONE)

    def start(self) -> None:
        """Without a consumer, the process is of no use: it ends, to be started again."""
        try:
            super().start()
        finally:
            draining.set()

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        """One that no broken frame ends."""
        connection = super().connection_for_read(heartbeat)
        transport = connection.transport
        transport.on_readable = self._outliving(transport.on_readable)
        return connection

    def ensure_connected(self, connection: Any) -> Any:
        """However long the broker has been away, it is looked for every few seconds; by default, it would be 30."""
        connection.ensure_connection = partial(connection.ensure_connection, interval_max=BROKER_SECONDS)
        return super().ensure_connected(connection)

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Message], None]:
        """One that no message ends."""
        return self._outliving(super().create_task_handler(*arguments, **options))

    def _outliving(self, handle: Callable[..., None]) -> Callable[..., None]:
        """``handle``, which drops what it fails at, rather than raise: but for errors of the line."""
        of_the_line = {*self.connection_errors, *self.channel_errors, Empty} - {KeyError}  # a part that a message lacks

        @wraps(handle)
        def outliving(*arguments: Any) -> None:
            try:
                handle(*arguments)
            except tuple(of_the_line):
                raise
            except Exception:
                log.exception("message dropped")
                for message in arguments:
                    if isinstance(message, Message):
                        message.reject_log_error(log, self.connection_errors)  # type: ignore[no-untyped-call]

        return outliving
