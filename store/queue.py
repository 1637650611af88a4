"""The doorbell: a Celery message that carries a job's id, and means no more than "somebody look at the queue".

The database is the truth. A message may be lost, late or doubled, and nothing is: whoever is idle looks for itself.
"""

import structlog
from celery import Celery
from kombu.entity import Exchange
from kombu.entity import Queue as BrokerQueue
from kombu.exceptions import OperationalError

from store.settings import Settings
from store.shared import made_once
from store.states import Queue

WORK = "vitpress.work"  # the one task: claim the next job and see it through

UNHEARD_SECONDS = 3600  # after which RabbitMQ forgets the own queue of a worker that is gone

_REDIS_OPTIONS = {"socket_connect_timeout": 1, "socket_timeout": 1, "retry_on_timeout": False, "max_retries": 0}
_AMQP_OPTIONS = {"read_timeout": 1, "write_timeout": 1, "confirm_publish": True, "max_retries": 0}

log = structlog.get_logger(__name__)


@made_once
def sender(settings: Settings) -> Celery:
    """A Celery app that only sends, and gives up within seconds: a request waits for it."""
    if settings.broker_url is None:
        raise ValueError("VITPRESS_BROKER_URL is not set")
    app = Celery("vitpress", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        broker_connection_timeout=1,
        broker_transport_options=_REDIS_OPTIONS if speaks_redis(settings) else _AMQP_OPTIONS,
        broker_heartbeat=0,  # RabbitMQ would hang up on a sender that is silent between two jobs
    )
    return app


def speaks_redis(settings: Settings) -> bool:
    """Whether the broker is Redis or one of its kind; else it is RabbitMQ, or there is none."""
    return (settings.broker_url or "").startswith(("redis", "valkey", "sentinel"))


def ring(settings: Settings, job_id: str, to: Queue | str) -> bool:
    """Wake a worker: any that serves the queue ``to``, or the one of that name.

    False if the broker is out of reach; that is logged, and the sweeper's to mend.
    """
    try:
        try:
            _send(settings, job_id, to)
        except OperationalError as error:
            if not _was_hung_up(error):
                raise
            _send(settings, job_id, to)
    except (OperationalError, OSError, ValueError) as error:
        log.warning("doorbell not sent", job_id=job_id, error=str(error))
        return False
    return True


def own_queue(worker: str) -> BrokerQueue:
    """Of the bells for this worker alone. As it has no exchange, Redis keeps nothing of it once it is empty."""
    return BrokerQueue(f"worker.{worker}", Exchange(""), expires=UNHEARD_SECONDS)  # type: ignore[no-untyped-call]


def _send(settings: Settings, job_id: str, to: Queue | str) -> None:
    queue = to.value if isinstance(to, Queue) else own_queue(to)
    sender(settings).send_task(WORK, args=[job_id], queue=queue, retry=False, ignore_result=True)


def _was_hung_up(error: OperationalError) -> bool:
    """Whether RabbitMQ had closed the connection that was tried, as a restart of it does. redis-py sees to its own."""
    return isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, TimeoutError)


def ping(settings: Settings) -> None:
    """Raises if the broker is out of reach."""
    with sender(settings).connection_for_write() as connection:
        connection.ensure_connection(max_retries=0, timeout=1)
