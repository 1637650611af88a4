"""The Celery app, its settings, and what else lives in a worker process: the sweeper, the postman and the signal to
drain.

Start one with ``celery -A worker.app worker``; ``-Q cpu`` or ``-Q gpu,cpu`` overrides what the machine suggests.
"""

import os
import socket
import threading
from functools import cache
from typing import Any

from celery import Celery, signals

from store import logs
from store.queue import own_queue, speaks_redis
from store.session import engine
from store.settings import get_settings
from store.states import Queue
from worker import sweep
from worker.device import describe, queues
from worker.postman import Postman

BROKER_SECONDS = 5
NAME = f"{socket.gethostname()}:{os.getpid()}"  # of this worker process

settings = get_settings()

app = Celery("vitpress", broker=settings.broker_url, include=["worker.tasks"])
app.conf.update(
    # A message is only a doorbell, so it is acknowledged before the work: the lease, not the broker, tells whether work
    # has died. An acknowledgement after it would have the broker deliver a long job twice.
    task_acks_late=False,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_queues={queue.value: {} for queue in queues(settings)},
    # A busy worker leaves the bells to idle ones.
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    # One thread, since the work is a process of its own: Celery's main thread stays free for the broker and for
    # SIGTERM, of which the thread hears by `draining`. A prefork child would be one more process to lose, and deaf to
    # SIGTERM.
    worker_pool="worker.pool:Pool",
    worker_concurrency=1,
    worker_consumer="worker.consumer:Consumer",
    worker_pool_start_method="spawn",  # for `-P prefork`: a fork would share the database's sockets
    worker_hijack_root_logger=False,
    worker_enable_remote_control=False,  # nobody listens to its broadcasts, which a broker would have to hold
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # by default it gives up within the hour
    broker_channel_error_retry=True,  # as a Redis whose disk is full may not be so for good
    # A line that is dead, or a broker that hangs, is given up within seconds. RabbitMQ is known by its heartbeats.
    broker_connection_timeout=BROKER_SECONDS,
    broker_heartbeat=2 * BROKER_SECONDS,
    broker_transport_options={
        "socket_connect_timeout": BROKER_SECONDS,
        "socket_timeout": BROKER_SECONDS,
        "health_check_interval": BROKER_SECONDS,
    }
    if speaks_redis(settings)
    else {},
)

draining = threading.Event()
"""Set once the worker has been told to shut down: the job at hand goes back to the queue."""


busy = threading.Event()
"""Set while a job is at hand, or about to be."""


def served_queues() -> list[Queue]:
    """Those this process listens to, as the command line has it: it claims from no others."""
    shared = {queue.value for queue in Queue}
    return [Queue(name) for name in app.amqp.queues.consume_from if name in shared]


@cache
def sweeper() -> sweep.Sweeper:
    """This process's, of which its task and its threads know."""
    return sweep.Sweeper(engine(settings), settings, NAME, served_queues(), busy, describe(settings))


def _log_json(**_: Any) -> None:
    logs.configure()


def _listen_for_its_own_bell(**_: Any) -> None:
    app.amqp.queues.select_add(own_queue(NAME))


def _sweep_beside(**_: Any) -> None:
    threading.Thread(target=sweeper().run, args=[draining], name="sweeper").start()
    threading.Thread(target=Postman(engine(settings), settings).run, args=[draining], name="postman").start()


def _drain(**_: Any) -> None:
    draining.set()


signals.setup_logging.connect(_log_json)
signals.celeryd_after_setup.connect(_listen_for_its_own_bell)  # whatever queues the command line names
signals.worker_ready.connect(_sweep_beside)
signals.worker_shutting_down.connect(_drain)
