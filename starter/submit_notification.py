"""Submitting a notification: checked and rendered once, stored with its job, then the workflow."""

import hashlib
import json
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio.service import RPCError, RPCStatusCode

from activities.notification import render
from activities.templates import Template
from contracts.catalogue import NOTIFICATION, Priority
from contracts.payloads.job import JobRef, JobState
from contracts.payloads.notification import NotificationRequest, Route, notification_workflow_id
from starter.address_request import Address
from starter.notification_request import NotificationBody
from starter.services import Services
from starter.start_job import START_TIMEOUT, start_job
from store.files import File
from store.ids import new_id
from store.jobs import Job, NewJob
from store.notifications import AttachedFile, Notification
from store.submissions import check
from workflows.notification import NotificationWorkflow

MAX_ATTACHED_BYTES = 10 * 1024 * 1024  # relays commonly refuse mails above 25 MB, and base64 adds a third
DEFAULT_CATEGORY = "general"
NEVER_STARTED = "never_started"
ANY_BODY = "*"  # in the place of a hash: under this key every body is the same request


class InvalidNotification(ValueError):
    """The request cannot become a message; the text says what to change. Nothing was stored."""


@dataclass(frozen=True, slots=True)
class SubmittedNotification:
    """`deduplicated`: the same was asked before, so this is that job. `first_run_id` as in submit_file."""

    job: Job
    deduplicated: bool
    first_run_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Before:
    """The job that was asked for before, and those keys of the repetition under which it is not known yet."""

    job: Job
    unknown_keys: frozenset[str]


async def submit_notification(
    services: Services, tenant: str, body: NotificationBody, *, idempotency_key: str | None, trace_id: str | None
) -> SubmittedNotification:
    """Store and start. What was stored is started by the same request sent again, however late.

    A repetition is recognised before anything is checked: what it named may be past or deleted by then.

    Raises:
        InvalidNotification: unknown person, template or file, or a time that is past.
        UnknownTemplate: no such template.
        TemplateDataError: the template needs data that is not there, in any of its locales.
        TemplateBroken: the template's own files are wrong.
        IdempotencyConflict: the key was used for another body.
        RPCError: Temporal does not answer; the notification is stored and its job is `submitted`.
    """
    keys = _keys(body, idempotency_key)
    async with services.database.read() as connection:
        before = await _before(services, connection, tenant, keys) if keys else None
    stale = before.job if before and await _stale(services, before, idempotency_key) else None
    new = None
    if before is None or stale is not None:
        new = await _notification(services, tenant, body)
        _check_content(services, new)
        async with services.database.write() as connection:
            submitted = await _repeated(services, connection, tenant, keys, stale)
            submitted = submitted or await _store(services, connection, new, body, keys, trace_id)
    elif before.unknown_keys:
        async with services.database.write() as connection:
            known = await _repeated(services, connection, tenant, keys, None)
        submitted = known or SubmittedNotification(before.job, deduplicated=True)
    else:
        submitted = SubmittedNotification(before.job, deduplicated=True)
    return await _started(services, submitted, None if submitted.deduplicated else new)


async def _started(
    services: Services, submitted: SubmittedNotification, new: Notification | None
) -> SubmittedNotification:
    job = submitted.job
    if job.state is not JobState.SUBMITTED:
        return submitted
    stored = new or await services.notifications.get(job.tenant, job.job_id)
    assert stored is not None, "stored with its job"
    first_run_id = await start_job(
        services,
        NOTIFICATION,
        job,
        NotificationWorkflow.run,
        NotificationRequest(job=JobRef(job_id=job.job_id, tenant=job.tenant), expires_at=stored.expires_at),
        summary=f"{stored.template or 'a message'} by {', then '.join(stored.routes)}",
        priority=Priority.INTERACTIVE if stored.urgent else None,
    )
    running = replace(job, state=JobState.RUNNING, first_run_id=first_run_id)
    return replace(submitted, job=running, first_run_id=first_run_id)


def _keys(body: NotificationBody, idempotency_key: str | None) -> dict[str, str]:
    """Keys of the submission, each with the hash that a repetition must have; a dedupe key accepts any body."""
    keys = {}
    if idempotency_key:
        asked = json.dumps([NOTIFICATION.name, body.model_dump(mode="json")], sort_keys=True)
        keys[idempotency_key] = hashlib.sha256(asked.encode()).hexdigest()
    if body.dedupe_key:
        to = body.recipient
        whom = f"{to.channel.value}:{to.address}" if isinstance(to, Address) else to
        digest = hashlib.sha256(f"{whom}\n{body.dedupe_key}".encode()).hexdigest()
        keys[f"dedupe:{digest}"] = ANY_BODY
    return keys


async def _before(services: Services, connection: AsyncConnection, tenant: str, keys: dict[str, str]) -> _Before | None:
    """What is known under any of the keys; the Idempotency-Key's own job comes first.

    Raises:
        IdempotencyConflict: the key was used for another body.
    """
    found: dict[str, Job] = {}
    for key, body_hash in sorted(keys.items()):  # one order for all, or two requests could wait for each other
        submission = await services.submissions.find(connection, tenant, key)
        if submission is not None:
            check(submission, body_hash)
            job = await services.jobs.get(tenant, submission.job_id, connection)
            if job is not None:
                found[key] = job
    if not found:
        return None
    first = next(key for key in keys if key in found)
    return _Before(found[first], frozenset(keys.keys() - found.keys()))


async def _stale(services: Services, before: _Before, idempotency_key: str | None) -> bool:
    """Whether a dedupe key stands for a message that expired before Temporal ever got it, and so can reach nobody.

    Raises:
        RPCError: Temporal does not answer.
    """
    job = before.job
    own = idempotency_key is not None and idempotency_key not in before.unknown_keys
    if own or job.state is not JobState.SUBMITTED:
        return False
    stored = await services.notifications.get(job.tenant, job.job_id)
    if stored is None or services.clock.now() < stored.expires_at:
        return False
    try:
        await services.temporal.get_workflow_handle(job.workflow_id).describe(rpc_timeout=START_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return True
    return False  # started, and only the note of it was lost


async def _repeated(
    services: Services, connection: AsyncConnection, tenant: str, keys: dict[str, str], stale: Job | None
) -> SubmittedNotification | None:
    """The job of an earlier request, under all keys from now on; None if there is none, or only the stale one."""
    before = await _before(services, connection, tenant, keys)
    if before is None:
        return None
    if stale is not None and before.job.job_id == stale.job_id:
        await services.jobs.close_unstarted(
            connection,
            stale.job_id,
            cause=NEVER_STARTED,
            error="Temporal did not answer when this was submitted, and the message expired before it was sent again.",
        )
        return None
    for key in before.unknown_keys:
        await services.submissions.add(connection, tenant, key, keys[key], before.job.job_id)
    return SubmittedNotification(before.job, deduplicated=True)


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
            workflow_id=notification_workflow_id(new.tenant, new.notification_id),
            person=new.person,
            trace_id=trace_id,
        ),
    )
    await services.notifications.add(connection, new)
    for key, body_hash in keys.items():
        await services.submissions.add(connection, new.tenant, key, body_hash, job.job_id)
    return SubmittedNotification(job, deduplicated=False)


def _check_content(services: Services, new: Notification) -> None:
    """Missing data is the sender's mistake and is told to the sender: also that of a locale nobody has today."""
    if new.template is not None:
        services.templates.check_data(new.template, new.data)
    else:
        render(services.templates, new, None, None)


async def _check_person(services: Services, tenant: str, person: str) -> None:
    if await services.people.get(tenant, person) is None:
        msg = f"there is no person {person!r}: make one with PUT /v1/people/{person}, or name an address"
        raise InvalidNotification(msg)


async def _notification(services: Services, tenant: str, body: NotificationBody) -> Notification:
    now = services.clock.now()
    template = services.templates.get(body.template) if body.template else None
    try:
        expires_at = body.expires_at(now)
    except ValueError as error:
        raise InvalidNotification(str(error)) from error
    direct = isinstance(body.recipient, Address)
    if not direct:
        await _check_person(services, tenant, str(body.recipient))
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
        found = await services.files.get(tenant, file_id)
        if found is None:
            raise InvalidNotification(f"there is no file {file_id} to attach")
        file, content = found
        if content.media_type is None:
            raise InvalidNotification(await _why_unverified(services, tenant, file))
        total += file.size_bytes
        attached.append(AttachedFile(file.filename, content.media_type, content.blob_key))
    if total > MAX_ATTACHED_BYTES:
        raise InvalidNotification(f"the attachments have {total:,} bytes; at most {MAX_ATTACHED_BYTES:,} are sent")
    return tuple(attached)


async def _why_unverified(services: Services, tenant: str, file: File) -> str:
    job = await services.jobs.get(tenant, file.job_id)
    if job is not None and job.state in {JobState.FAILED, JobState.CANCELLED}:
        return f"the file {file.file_id} was not accepted and so is not attached: {job.error or job.state.value}"
    return f"the file {file.file_id} is not verified yet: send this again when its job {file.job_id} says so"
