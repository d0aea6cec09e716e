"""Submitting a notification: checked and rendered once, stored with its job, then the workflow."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.notification import render
from activities.templates import Template
from contracts.catalogue import NOTIFICATION, Priority
from contracts.payloads.job import JobRef, JobState
from contracts.payloads.notification import NotificationRequest, Route
from starter.notification_request import Address, NotificationBody
from starter.services import Services
from starter.start_job import start_job
from store.ids import new_id
from store.jobs import Job, NewJob
from store.notifications import AttachedFile, Notification
from store.people import Person
from store.submissions import check
from workflows.notification import NotificationWorkflow, workflow_id

MAX_ATTACHED_BYTES = 10 * 1024 * 1024  # relays commonly refuse mails above 25 MB, and base64 adds a third
DEFAULT_CATEGORY = "general"


class InvalidNotification(ValueError):
    """The request cannot become a message; the text says what to change. Nothing was stored."""


@dataclass(frozen=True, slots=True)
class SubmittedNotification:
    """`deduplicated`: the same was asked before, so this is that job. `first_run_id` as in submit_file."""

    job: Job
    deduplicated: bool
    first_run_id: str | None = None


async def submit_notification(
    services: Services, tenant: str, body: NotificationBody, *, idempotency_key: str | None, trace_id: str | None
) -> SubmittedNotification:
    """Store and start. What was stored is started by the same request sent again.

    Raises:
        InvalidNotification: unknown person, template or file, or a time that is past.
        UnknownTemplate: no such template.
        TemplateDataError: the template needs data that is not there.
        IdempotencyConflict: the key was used for another body.
        RPCError: Temporal does not answer; the notification is stored and its job is `submitted`.
    """
    asked = NOTIFICATION.name + body.model_dump_json()
    body_hash = hashlib.sha256(asked.encode()).hexdigest()
    keys = _keys(body, body_hash, idempotency_key)
    person = await _person(services, tenant, body)
    new = await _notification(services, tenant, body)
    # missing data is the sender's mistake, and must be told to the sender
    render(services.templates, new, person.locale if person else None, None)
    async with services.database.write() as connection:
        submitted = await _known(services, connection, tenant, keys) or await _store(
            services, connection, new, body, keys, trace_id
        )
    if submitted.job.state is not JobState.SUBMITTED:
        return submitted
    stored = new if not submitted.deduplicated else await services.notifications.get(tenant, submitted.job.job_id)
    assert stored is not None
    first_run_id = await start_job(
        services,
        NOTIFICATION,
        submitted.job,
        NotificationWorkflow.run,
        NotificationRequest(job=JobRef(job_id=submitted.job.job_id, tenant=tenant), expires_at=stored.expires_at),
        summary=f"{stored.template or 'a message'} by {', then '.join(stored.routes)}",
        priority=Priority.INTERACTIVE if stored.urgent else None,
    )
    running = replace(submitted.job, state=JobState.RUNNING, first_run_id=first_run_id)
    return replace(submitted, job=running, first_run_id=first_run_id)


def _keys(body: NotificationBody, body_hash: str, idempotency_key: str | None) -> dict[str, str]:
    """Keys of the submission, each with the hash that a repetition must have; a dedupe key accepts any body."""
    keys = {}
    if idempotency_key:
        keys[idempotency_key] = body_hash
    if body.dedupe_key:
        to = body.recipient
        whom = f"{to.channel.value}:{to.address}" if isinstance(to, Address) else to
        digest = hashlib.sha256(f"{whom}\n{body.dedupe_key}".encode()).hexdigest()
        keys[f"dedupe:{digest}"] = "any"
    return keys


async def _known(
    services: Services, connection: AsyncConnection, tenant: str, keys: dict[str, str]
) -> SubmittedNotification | None:
    for key, body_hash in sorted(keys.items()):  # one order for all, or two requests could wait for each other
        before = await services.submissions.find(connection, tenant, key)
        if before is not None:
            check(before, body_hash)
            job = await services.jobs.get(tenant, before.job_id, connection)
            if job is not None:
                return SubmittedNotification(job, deduplicated=True)
    return None


async def _store(
    services: Services,
    connection: AsyncConnection,
    new: Notification,
    body: NotificationBody,
    keys: dict[str, str],
    trace_id: str | None,
) -> SubmittedNotification:
    if isinstance(body.recipient, Address):
        target = await services.people.register(connection, new.tenant, None, body.recipient.target())
        new = replace(new, target_id=target.target_id, person=target.person)
    job, _ = await services.jobs.submit(
        connection,
        NewJob(
            job_id=new.notification_id,
            tenant=new.tenant,
            type=NOTIFICATION.name,
            workflow_id=workflow_id(new.tenant, new.notification_id),
            person=new.person,
            trace_id=trace_id,
        ),
    )
    await services.notifications.add(connection, new)
    for key, body_hash in keys.items():
        await services.submissions.add(connection, new.tenant, key, body_hash, job.job_id)
    return SubmittedNotification(job, deduplicated=False)


async def _person(services: Services, tenant: str, body: NotificationBody) -> Person | None:
    if isinstance(body.recipient, Address):
        return None
    person = await services.people.get(tenant, body.recipient)
    if person is None:
        msg = (
            f"there is no person {body.recipient!r}: make one with PUT /v1/people/{body.recipient}, or name an address"
        )
        raise InvalidNotification(msg)
    return person


async def _notification(services: Services, tenant: str, body: NotificationBody) -> Notification:
    now = services.clock.now()
    template = services.templates.get(body.template) if body.template else None
    try:
        expires_at = body.expires_at(now)
    except ValueError as error:
        raise InvalidNotification(str(error)) from error
    direct = isinstance(body.recipient, Address)
    routes = _routes(services, body, template)
    return Notification(
        notification_id=new_id(),
        tenant=tenant,
        person=None if direct else str(body.recipient),
        category=body.category or (template.category if template else DEFAULT_CATEGORY),
        routes=routes,
        every=body.every if body.every is not None else bool(template and template.every and not direct),
        urgent=body.urgency == "urgent",
        mandatory=bool(template and template.mandatory),
        resend=template.after_lost_reply == "resend" if template else True,
        template=body.template,
        content=body.content.model_dump(exclude_none=True) if body.content else None,
        data=body.data,
        attachments=await _attachments(services, tenant, body.attachments),
        created_at=now,
        expires_at=expires_at,
    )


def _routes(services: Services, body: NotificationBody, template: Template | None) -> tuple[Route, ...]:
    if isinstance(body.recipient, Address):
        routes: tuple[Route, ...] = (Route(body.recipient.channel.value),)
    elif body.channels is not None:
        routes = tuple(body.channels)
    else:
        routes = template.channels if template else ()
    if not any(route.channels & services.channels for route in routes):
        names = ", ".join(sorted(services.channels)) or "none"
        msg = f"none of the channels {', '.join(routes)} is configured here; configured are: {names}"
        raise InvalidNotification(msg)
    return routes


async def _attachments(services: Services, tenant: str, file_ids: list[str]) -> tuple[AttachedFile, ...]:
    attached = []
    total = 0
    for file_id in file_ids:
        found: Any = await services.files.get(tenant, file_id)
        if found is None:
            raise InvalidNotification(f"there is no file {file_id} to attach")
        file, content = found
        total += file.size_bytes
        media_type = content.media_type or "application/octet-stream"
        attached.append(AttachedFile(file.filename, media_type, content.blob_key))
    if total > MAX_ATTACHED_BYTES:
        raise InvalidNotification(f"the attachments have {total:,} bytes; at most {MAX_ATTACHED_BYTES:,} are sent")
    return tuple(attached)
