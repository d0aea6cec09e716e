"""Submitting a broadcast: the message checked, its recipients taken in, stored with its job, then the workflow."""

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.catalogue import BROADCAST
from contracts.payloads.broadcast import BroadcastRequest
from contracts.payloads.job import JobRef, JobState
from contracts.payloads.notification import Route
from starter.audiences import audience_lock
from starter.body_lines import BodyLines
from starter.broadcast_request import AudienceBroadcastBody, BroadcastBody, Fit
from starter.recipient_intake import Report, Taken, keep, take_in
from starter.services import Services
from starter.start_job import start_job
from starter.submit_notification import DEFAULT_CATEGORY
from store.broadcasts import Broadcast
from store.ids import new_id
from store.jobs import Job, NewJob
from store.submissions import check
from workflows.broadcast import BroadcastWorkflow, workflow_id


class InvalidBroadcast(ValueError):
    """The request cannot become a broadcast; the text says what to change. Nothing was stored."""


@dataclass(frozen=True, slots=True)
class SubmittedBroadcast:
    """`deduplicated`: the same was asked before, so this is that job. `first_run_id` as in submit_file."""

    job: Job
    report: Report
    deduplicated: bool
    first_run_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who asks, under which key; `body_hash` once the body is read."""

    tenant: str
    idempotency_key: str | None
    trace_id: str | None
    body_hash: str = ""


async def submit_to_lines(
    services: Services,
    tenant: str,
    body: BroadcastBody,
    lines: BodyLines,
    *,
    idempotency_key: str | None,
    trace_id: str | None,
    strict: bool = False,
) -> SubmittedBroadcast:
    """Store and start a broadcast to the recipients of these lines.

    A repetition is recognised by its key before anything is stored, and by the whole body.

    Raises:
        InvalidBroadcast: no channel, or a time that is past.
        UnknownTemplate: no such template.
        TemplateDataError: the template's data fits none of the first recipients.
        TemplateBroken: the template's own files are wrong.
        RecipientsRefused: no line is good, or one is bad and this is `strict`.
        TooManyRecipients: more lines than HOLDFAST_MAX_RECIPIENTS.
        IdempotencyConflict: the key was used for another body.
        RPCError: Temporal does not answer; the broadcast is stored and its job is `submitted`.
    """
    asked = _Asked(tenant, idempotency_key, trace_id)
    if idempotency_key and await _known_key(services, asked):
        async for _ in lines:  # for their hash only
            pass
        asked = replace(asked, body_hash=_hash(body, lines.sha256))
        before = await _before(services, asked)
        if before is not None:
            return await _started(services, before)
        raise InvalidBroadcast("the first request with this Idempotency-Key has just expired: send it again")
    new = _broadcast(services, tenant, body)
    fit = Fit(services.templates, body, new.routes)
    async with take_in(services, tenant, lines, check=fit, strict=strict) as taken:
        asked = replace(asked, body_hash=_hash(body, lines.sha256))
        async with services.database.write() as connection:
            submitted = await _repeated(services, connection, asked)
            if submitted is None:
                new = replace(new, set_id=taken.set_id, total=taken.report.recipients)
                submitted = await _store(services, connection, new, asked, taken.report, taken)
    return await _started(services, submitted)


async def submit_to_audience(
    services: Services, tenant: str, body: AudienceBroadcastBody, *, idempotency_key: str | None, trace_id: str | None
) -> SubmittedBroadcast:
    """Store and start a broadcast to an audience as it is now; saving it again changes nothing for this broadcast.

    Raises:
        InvalidBroadcast: no such audience, no channel, or a time that is past.
        UnknownTemplate: no such template.
        TemplateDataError: the data does not fit the template for the audience's first recipient.
        TemplateBroken: the template's own files are wrong.
        IdempotencyConflict: the key was used for another body.
        RPCError: Temporal does not answer; the broadcast is stored and its job is `submitted`.
    """
    asked = _Asked(tenant, idempotency_key, trace_id, _hash(body, ""))
    before = await _before(services, asked)
    if before is not None:
        return await _started(services, before)
    new = _broadcast(services, tenant, body)
    await _check_first(services, tenant, body, new.routes)
    async with services.database.write() as connection:
        submitted = await _repeated(services, connection, asked)
        if submitted is None:
            await audience_lock(connection, tenant, body.audience)
            audience = await services.recipients.audience(tenant, body.audience, connection)
            if audience is None:
                raise _no_audience(body.audience)
            report = await _report(services, connection, tenant, audience.set_id)
            new = replace(new, set_id=audience.set_id, total=audience.total)
            submitted = await _store(services, connection, new, asked, report, None)
    return await _started(services, submitted)


async def _started(services: Services, submitted: SubmittedBroadcast) -> SubmittedBroadcast:
    job = submitted.job
    if job.state is not JobState.SUBMITTED:
        return submitted
    stored = await services.broadcasts.get(job.tenant, job.job_id)
    assert stored is not None, "stored with its job"
    ref = JobRef(job_id=job.job_id, tenant=job.tenant)
    first_run_id = await start_job(
        services,
        BROADCAST,
        job,
        BroadcastWorkflow.run,
        BroadcastRequest(job=ref, total=stored.total, expires_at=stored.expires_at),
        summary=f"{stored.template or 'a message'} to {stored.total:,} recipients by {', then '.join(stored.routes)}",
    )
    return replace(
        submitted, job=replace(job, state=JobState.RUNNING, first_run_id=first_run_id), first_run_id=first_run_id
    )


def _hash(body: BroadcastBody, lines_sha256: str) -> str:
    asked = json.dumps([BROADCAST.name, body.model_dump(mode="json"), lines_sha256], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()


async def _known_key(services: Services, asked: _Asked) -> bool:
    async with services.database.read() as connection:
        found = await services.submissions.find(connection, asked.tenant, asked.idempotency_key or "")
        return found is not None and await services.jobs.get(asked.tenant, found.job_id, connection) is not None


async def _before(services: Services, asked: _Asked) -> SubmittedBroadcast | None:
    if not asked.idempotency_key:
        return None
    async with services.database.read() as connection:
        return await _repeated(services, connection, asked)


async def _repeated(services: Services, connection: AsyncConnection, asked: _Asked) -> SubmittedBroadcast | None:
    """The job of an earlier request with this key.

    Raises:
        IdempotencyConflict: the key was used for another body.
    """
    if not asked.idempotency_key:
        return None
    submission = await services.submissions.find(connection, asked.tenant, asked.idempotency_key)
    if submission is None:
        return None
    check(submission, asked.body_hash)
    job = await services.jobs.get(asked.tenant, submission.job_id, connection)
    if job is None:
        return None
    report = await _report(services, connection, asked.tenant, submission.resource_id or "")
    return SubmittedBroadcast(job, report, deduplicated=True)


async def _report(services: Services, connection: AsyncConnection, tenant: str, set_id: str) -> Report:
    found = await services.recipients.get(tenant, set_id, connection)
    return Report.model_validate(found.report if found else {})


async def _store(
    services: Services,
    connection: AsyncConnection,
    new: Broadcast,
    asked: _Asked,
    report: Report,
    taken: Taken | None,
) -> SubmittedBroadcast:
    if taken is not None:
        await keep(services, connection, taken)
    job, _ = await services.jobs.submit(
        connection,
        NewJob(
            job_id=new.broadcast_id,
            tenant=new.tenant,
            type=BROADCAST.name,
            workflow_id=workflow_id(new.tenant, new.broadcast_id),
            trace_id=asked.trace_id,
        ),
    )
    await services.broadcasts.add(connection, new)
    if asked.idempotency_key:
        await services.submissions.add(
            connection, new.tenant, asked.idempotency_key, asked.body_hash, job.job_id, new.set_id
        )
    return SubmittedBroadcast(job, report, deduplicated=False)


def _broadcast(services: Services, tenant: str, body: BroadcastBody) -> Broadcast:
    """The message, without recipients yet."""
    now = services.clock.now()
    template = services.templates.get(body.template) if body.template else None
    if body.content is not None:
        services.templates.from_text(**body.content.model_dump())
    return Broadcast(
        broadcast_id=new_id(),
        tenant=tenant,
        set_id="",
        total=0,
        category=body.category or (template.category if template else DEFAULT_CATEGORY),
        routes=_routes(services, body),
        every=body.every if body.every is not None else bool(template and template.every),
        urgent=body.urgency == "urgent",
        mandatory=bool(template and template.mandatory),
        resend=template.after_lost_reply == "resend" if template else True,
        template=body.template,
        content=body.content.model_dump(exclude_none=True) if body.content else None,
        data=body.data,
        created_at=now,
        expires_at=_expires_at(body, now),
    )


def _expires_at(body: BroadcastBody, now: datetime) -> datetime:
    try:
        return body.expires_at(now)
    except ValueError as error:
        raise InvalidBroadcast(str(error)) from error


def _routes(services: Services, body: BroadcastBody) -> tuple[Route, ...]:
    routes = tuple(body.channels or ())
    if body.channels is None and body.template:
        routes = services.templates.get(body.template).channels
    if not any(route.channels & services.channels for route in routes):
        names = ", ".join(sorted(services.channels)) or "none"
        msg = f"none of the channels {', '.join(routes)} is configured here; configured are: {names}"
        raise InvalidBroadcast(msg)
    return routes


async def _check_first(services: Services, tenant: str, body: AudienceBroadcastBody, routes: tuple[Route, ...]) -> None:
    """The audience exists, and the message can be said to its first recipient."""
    audience = await services.recipients.audience(tenant, body.audience)
    if audience is None:
        raise _no_audience(body.audience)
    for line, _ in await services.recipients.bounds(audience.set_id, 1, 1, 1):
        for recipient in await services.recipients.of_lines(audience.set_id, [line]):
            data = (recipient.data or {}) if body.template else {}
            problem = Fit(services.templates, body, routes).why_data_unfit(data)
            if problem is not None:
                raise InvalidBroadcast(f"the audience's first recipient (line {line}) {problem}")


def _no_audience(name: str) -> InvalidBroadcast:
    return InvalidBroadcast(f"there is no audience {name!r}: save one with PUT /v1/audiences/{name}")
