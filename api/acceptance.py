"""Submissions that come together are accepted together, in one transaction: most of what one costs is its commit.

Whatever must wait for others (an owner's limits), or may turn out to be wrong (a project, what is brought), is accepted
alone, so that it keeps nobody waiting.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from api.schemas import JobRequest
from core.errors import VitpressError
from store import idempotency, jobs, owners, storage
from store.brought import SCHEME
from store.idempotency import Answer, Asked
from store.jobs import NewJob
from store.queue import ring
from store.settings import Settings
from store.states import Queue
from store.values import Identity, JobView, Place

BELLS = 4  # at most, of what is accepted together: whoever hears one takes jobs until none waits


@dataclass(frozen=True, eq=False)
class Submission:
    """A request for one job, whose body was checked."""

    body: JobRequest
    asking: Identity
    reservation: Asked | None  # where it has an ``Idempotency-Key``
    new: Callable[[Session, Place], NewJob]
    answered: Callable[[JobView], Answer]
    context: Context = field(default_factory=copy_context)  # of the request

    @property
    def where(self) -> tuple[str, str]:
        """The owner's id and the project's name, by which ``owners.unlimited`` answers."""
        return self.asking.owner_id, self.body.project


@dataclass(frozen=True)
class Accepted:
    """A job that is queued once the transaction is committed; it is to be rung for then."""

    job_id: str
    queue: Queue
    answer: Answer


Outcome = Accepted | Answer  # an answer alone: what an earlier request with the same key was given


def accept(session: Session, submissions: Sequence[Submission]) -> Mapping[Submission, Outcome | VitpressError]:
    """Raises, for a lone one: ``ProjectNotFoundError``, ``DailyLimitError``, ``StorageQuotaError``."""
    places = _places(session, submissions) if len(submissions) > 1 else dict.fromkeys(submissions)
    reserved = {each: each.reservation for each in places if each.reservation is not None}
    earlier = idempotency.reserve_each(session, list(reserved.values()))
    done = {each: earlier[reservation] for each, reservation in reserved.items() if reservation in earlier}
    new = {each: each.context.run(_new, session, each, place) for each, place in places.items() if each not in done}
    views = jobs.get_each(session, jobs.add_each(session, list(new.values())))
    accepted = {each: Accepted(view.id, view.queue, each.answered(view)) for each, view in zip(new, views, strict=True)}
    answers = {reserved[each][:2]: one.answer for each, one in accepted.items() if each in reserved}
    idempotency.keep_each(session, answers)
    return done | accepted


def ring_for(settings: Settings, outcomes: Collection[Outcome]) -> None:
    """After the commit. An answer alone made nothing: for it, nobody is woken."""
    accepted = [each for each in outcomes if isinstance(each, Accepted)]
    for queue in Queue:
        for each in [each for each in accepted if each.queue is queue][:BELLS]:
            ring(settings, each.job_id, queue)


def _places(session: Session, submissions: Sequence[Submission]) -> dict[Submission, Place | None]:
    """Of those that can be accepted together."""
    unlimited = owners.unlimited(session, {each.where for each in submissions})
    keys: set[tuple[str, str]] = set()
    together: dict[Submission, Place | None] = {}
    for each in submissions:
        key = each.reservation and each.reservation[:2]
        twin = key in keys  # it is answered as the first, who is not yet
        brought = any(name.startswith(SCHEME) for name in (each.body.model, each.body.dataset))
        if each.where in unlimited and not twin and not brought:
            together[each] = unlimited[each.where]
            keys |= {key} if key else set()
    return together


def _new(session: Session, submission: Submission, place: Place | None) -> NewJob:
    if place is None:  # it is alone
        owner_id, project = submission.where
        storage.check_quota(session, owner_id)
        place = owners.place(session, owner_id, project)
        jobs.check_daily_limit(session, owner_id)
    return submission.new(session, place)
