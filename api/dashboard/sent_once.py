"""A form that is sent twice, by a double click or a reload, makes one job: by the API's idempotency.

The key is that of a hidden field together with what the form says. So who goes back, changes something and sends it
again has another job, and who changes nothing is led to the one that is there.
"""

import hashlib
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, Request, Response
from markupsafe import Markup

from api.dashboard.visitor import Visitor
from api.idempotency import OneRequest
from api.resources import Found

FIELD = "once"
STATUS = 303  # of the answer, which leads to what was made


async def sent_once(visitor: Visitor, found: Found, request: Request, response: Response) -> OneRequest:
    """Without the field, as the API's without its header."""
    form = await request.form()
    key = form.get(FIELD)
    said = [(name, text) for name, text in form.multi_items() if name != FIELD]
    fingerprint = hashlib.sha256(f"{request.url.path}\n{said}".encode()).hexdigest()
    of_form = hashlib.sha256(f"{key} {fingerprint}".encode()).hexdigest() if isinstance(key, str) and key else None
    return OneRequest(found.engine, visitor.owner_id, of_form, fingerprint, STATUS, response)


def leads_to(once: OneRequest, response: Response, path: str) -> None:
    """Within the transaction: where the form's sender goes on, now and if it comes again."""
    response.headers["Location"] = path
    once.answered(None)


def field() -> Markup:
    """Of a template, for a form."""
    return Markup('<input type="hidden" name="{}" value="{}" autocomplete="off">').format(FIELD, uuid4().hex)


SentOnce = Annotated[OneRequest, Depends(sent_once)]
