"""`holdfast broadcasts …` and `holdfast audiences …`: send to many, watch, pause; save who they are."""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from uuid import UUID

import typer
from pydantic import ValidationError
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from temporalio.service import RPCError

from contracts.catalogue import BROADCAST
from contracts.payloads.job import JobState
from contracts.payloads.notification import ChannelName, Route
from runtime.settings import Settings
from starter.audiences import remove_audience, save_audience
from starter.body_lines import BodyLines
from starter.broadcast_request import AudienceBroadcastBody, BroadcastBody
from starter.broadcast_state import BroadcastState, state_of
from starter.cancel_job import cancel_job
from starter.command import complain, out, run_command
from starter.job_state import LiveJob, look_at
from starter.notify_cli import _json, _tenant
from starter.pause_broadcast import NotRunning, NoWorkerAnswers, pause_broadcast, resume_broadcast
from starter.recipient_intake import RecipientsRefused, Report, TooManyRecipients, all_dropped
from starter.request_model import in_words
from starter.services import Services, open_services
from starter.submit_broadcast import InvalidBroadcast, SubmittedBroadcast, submit_to_audience, submit_to_lines
from store.jobs import Job

broadcasts = typer.Typer(help="One message to many.", no_args_is_help=True)
audiences = typer.Typer(help="Recipients saved under a name.", no_args_is_help=True)

BLOCK_BYTES = 64 * 1024
SHOWN_LINES = 10  # of a report
POLL_SECONDS = 0.5
PLAIN_SECONDS = 5.0  # between two lines where standard output is no terminal

Tenant = Annotated[str, typer.Option(help="Whose recipients.", callback=_tenant)]
Source = Annotated[str | None, typer.Option("--file", help="A line per recipient (NDJSON); `-` is standard input.")]


class _Refused(Exception):
    """Told to the operator in one line."""


@broadcasts.command("send")
def send(
    tenant: Tenant,
    file: Source = None,
    audience: Annotated[str | None, typer.Option(help="Instead of a file.")] = None,
    template: Annotated[str | None, typer.Option(help="See `holdfast notify templates`.")] = None,
    data: Annotated[str, typer.Option(help="JSON for the template, or `@file`.")] = "{}",
    subject: Annotated[str | None, typer.Option(help="Without a template.")] = None,
    text: Annotated[str | None, typer.Option(help="Without a template.")] = None,
    category: Annotated[str | None, typer.Option(help="By default the template's.")] = None,
    channel: Annotated[list[Route] | None, typer.Option(help="In order of preference; may be repeated.")] = None,
    urgent: Annotated[bool, typer.Option("--urgent", help="Ignore quiet hours.")] = False,  # noqa: FBT002 - an option
    expires: Annotated[str | None, typer.Option(help="A time, or a duration such as PT2H.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Send nothing if one line is bad.")] = False,  # noqa: FBT002 - an option
    idempotency_key: Annotated[str | None, typer.Option(help="The same command again sends nothing new.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Until it ended.")] = False,  # noqa: FBT002 - an option
) -> None:
    """Send one message to the recipients of a file, of standard input or of an audience."""
    if file is not None and audience is not None:
        raise typer.BadParameter("say either --file or --audience")
    settings = Settings()
    asked: dict[str, Any] = {
        "template": template,
        "data": _json(data),
        "content": {"subject": subject, "text": text} if subject or text else None,
        "category": category,
        "channels": channel or None,
        "urgency": "urgent" if urgent else "normal",
        "expires": expires,
    }
    body = _body(asked, audience)

    async def work(opened: Services) -> int:
        services = replace(opened, channels=frozenset(ChannelName))  # the worker knows which it has
        keys: dict[str, Any] = {"idempotency_key": idempotency_key, "trace_id": None}
        try:
            if isinstance(body, AudienceBroadcastBody):
                submitted = await submit_to_audience(services, tenant, body, **keys)
            else:
                with _opened(file or "-") as source:
                    lines = BodyLines(_blocks(source))
                    submitted = await submit_to_lines(services, tenant, body, lines, strict=strict, **keys)
        except RPCError as error:
            raise _Refused(_not_started(error, repeatable=idempotency_key is not None)) from error
        if submitted.first_run_id:
            await services.jobs.started(submitted.job.job_id, submitted.first_run_id)
        _tell(submitted)
        return await _watch(services, submitted.job) if watch else 0

    _run(work, settings)


@broadcasts.command("list")
def list_broadcasts(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="The newest.")] = 20,
) -> None:
    """Broadcasts, newest first."""

    async def work(services: Services) -> int:
        jobs, _ = await services.jobs.list(tenant, type=BROADCAST.name, limit=limit)
        table = Table(Column("broadcast", no_wrap=True), "tenant", "message", "state", "done", "of", "submitted")
        for job in jobs:
            state = await state_of(services, LiveJob(job, live=False))
            if state is None:
                continue
            cells = (state.broadcast.template or "own text", _state(state), f"{state.done:,}")
            submitted = f"{job.submitted_at:%Y-%m-%d %H:%M}"
            table.add_row(str(job.job_id), job.tenant, *cells, f"{state.broadcast.total:,}", submitted)
        out.print(table)
        return 0

    _run(work, Settings())


@broadcasts.command("show")
def show(broadcast_id: UUID) -> None:
    """How far it is, and what was left out."""

    async def work(services: Services) -> int:
        state = await _look(services, await _find(services, broadcast_id))
        out.print(_line(state), highlight=False, soft_wrap=True)
        table = Table("outcome", "recipients")
        for outcome, count in sorted(state.counts.items()):
            table.add_row(outcome, f"{count:,}")
        out.print(table)
        found = await services.recipients.get(state.broadcast.tenant, state.broadcast.set_id)
        _tell_report(Report.model_validate(found.report if found else {}))
        return 0

    _run(work, Settings())


@broadcasts.command("watch")
def watch_broadcast(broadcast_id: UUID) -> None:
    """Until it ended; exit code 1 if it failed, was cancelled, or paused because too many were refused."""

    async def work(services: Services) -> int:
        return await _watch(services, await _find(services, broadcast_id))

    _run(work, Settings())


@broadcasts.command("pause")
def pause(broadcast_id: UUID, reason: Annotated[str, typer.Option(help="Shown to who looks at it.")] = "") -> None:
    """Begin nothing more; what is being sent ends within seconds."""
    if len(reason) > 500:  # noqa: PLR2004 - of PauseBroadcast
        raise typer.BadParameter("at most 500 characters", param_hint="--reason")

    async def work(services: Services) -> int:
        await pause_broadcast(services, await _find(services, broadcast_id), reason)
        out.print(f"paused; `holdfast broadcasts resume {broadcast_id}` goes on", highlight=False, soft_wrap=True)
        return 0

    _run(work, Settings())


@broadcasts.command("resume")
def resume(broadcast_id: UUID) -> None:
    """Go on where it was; what was refused is tried again."""

    async def work(services: Services) -> int:
        await resume_broadcast(services, await _find(services, broadcast_id))
        out.print("goes on", highlight=False, soft_wrap=True)
        return 0

    _run(work, Settings())


@broadcasts.command("cancel")
def cancel(broadcast_id: UUID) -> None:
    """End it; what is being sent ends within seconds."""

    async def work(services: Services) -> int:
        job = await _find(services, broadcast_id)
        if job.state.closed:
            raise _Refused(f"the broadcast has ended already: {job.state.value}")
        await cancel_job(services, job)
        out.print("asked to stop", highlight=False, soft_wrap=True)
        return 0

    _run(work, Settings())


@audiences.command("save")
def save(
    name: str,
    tenant: Tenant,
    file: Source = None,
    strict: Annotated[bool, typer.Option("--strict", help="Save nothing if one line is bad.")] = False,  # noqa: FBT002 - an option
) -> None:
    """Give the recipients of a file the name; they replace those that had it."""
    _body({"template": "-"}, name)

    async def work(services: Services) -> int:
        with _opened(file or "-") as source:
            report = await save_audience(services, tenant, name, BodyLines(_blocks(source)), strict=strict)
        out.print(f"{name}: {report.recipients:,} recipients", highlight=False, soft_wrap=True)
        _tell_report(report)
        return 0

    _run(work, Settings())


@audiences.command("list")
def list_audiences(tenant: Tenant) -> None:
    """By name."""

    async def work(services: Services) -> int:
        table = Table("audience", "recipients", "saved")
        for each in await services.recipients.audiences(tenant):
            table.add_row(each.name, f"{each.total:,}", f"{each.created_at:%Y-%m-%d %H:%M}")
        out.print(table)
        return 0

    _run(work, Settings())


@audiences.command("remove")
def remove(name: str, tenant: Tenant) -> None:
    """Forget the name and its recipients. Broadcasts that were sent to them go on."""

    async def work(services: Services) -> int:
        if not await remove_audience(services, tenant, name):
            raise _Refused(f"there is no audience {name!r}: see `holdfast audiences list --tenant {tenant}`")
        out.print("removed")
        return 0

    _run(work, Settings())


def _run(work: Any, settings: Settings) -> None:
    async def told() -> int:
        async with open_services(settings, role="cli") as services:
            await services.database.ping()
            doing: Coroutine[Any, Any, int] = work(services)
            try:
                return await doing
            except RecipientsRefused as error:
                complain(f"nothing was kept: {error}")
                _tell_report(error.report)
            except TooManyRecipients as error:
                complain(f"nothing was kept: {error}")
            except (InvalidBroadcast, NotRunning, NoWorkerAnswers, _Refused) as error:
                complain(str(error))
            finally:
                await all_dropped()
            return 1

    run_command(told(), settings)


def _body(asked: dict[str, Any], audience: str | None) -> BroadcastBody:
    try:
        if audience is not None:
            return AudienceBroadcastBody.model_validate(asked | {"audience": audience})
        return BroadcastBody.model_validate(asked)
    except ValidationError as error:
        problems = [f"{each['field']}: {each['problem']}".lstrip(": ") for each in in_words(error.errors())]
        raise typer.BadParameter("; ".join(problems)) from error


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        source = Path(name).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise _Refused(f"{name} cannot be read: {error.strerror}") from error
    with source:
        yield source


async def _blocks(source: BinaryIO) -> AsyncIterator[bytes]:
    while block := await asyncio.to_thread(source.read, BLOCK_BYTES):
        yield block


async def _find(services: Services, broadcast_id: UUID) -> Job:
    job = await services.jobs.get(None, broadcast_id)
    if job is None or job.type != BROADCAST.name:
        raise _Refused(f"there is no broadcast {broadcast_id}: see `holdfast broadcasts list`")
    return job


async def _look(services: Services, job: Job) -> BroadcastState:
    row = await services.jobs.get(job.tenant, job.job_id) or job
    state = await state_of(services, await look_at(services, row))
    assert state is not None, "stored with its job"
    return state


def _not_started(error: RPCError, *, repeatable: bool) -> str:
    told = f"Temporal does not answer ({error.status.name}), so the broadcast is stored and not sent. "
    if repeatable:
        return told + "Run the same command again: it starts that broadcast."
    return told + "Run the command again for another one; with --idempotency-key it would have been the same."


def _tell(submitted: SubmittedBroadcast) -> None:
    again = " (asked before: this is that broadcast)" if submitted.deduplicated else ""
    out.print(f"broadcast {submitted.job.job_id}{again}", highlight=False, soft_wrap=True)
    out.print(f"{submitted.report.recipients:,} recipients", highlight=False, soft_wrap=True)
    _tell_report(submitted.report)


def _tell_report(report: Report) -> None:
    if report.duplicates.count:
        lines = ", ".join(str(each) for each in report.duplicates.lines[:SHOWN_LINES])
        more = ", …" if report.duplicates.count > SHOWN_LINES else ""
        out.print(f"duplicates: {report.duplicates.count:,}, on lines {lines}{more}", highlight=False, soft_wrap=True)
    if report.bad.count:
        out.print(f"bad lines: {report.bad.count:,}", highlight=False, soft_wrap=True)
        for each in report.bad.lines[:SHOWN_LINES]:
            out.print(f"  line {each.line} {each.problem}", highlight=False, soft_wrap=True)
        if report.bad.count > SHOWN_LINES:
            out.print("  …", highlight=False, soft_wrap=True)


def _state(state: BroadcastState) -> str:
    job = state.live.job
    if state.paused is not None and not job.state.closed:
        return "paused"
    return job.state.value


def _line(state: BroadcastState) -> str:
    job = state.live.job
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(state.counts.items()))
    parts = [f"{_state(state)}: {state.done:,} of {state.broadcast.total:,}", counts, _speed(state)]
    if state.paused:
        parts.append(f"because: {state.paused}")
    elif job.error or job.cause:
        parts.append(job.error or job.cause or "")
    return "; ".join(each for each in parts if each)


def _speed(state: BroadcastState) -> str:
    if state.rate_per_second is None or state.left is None:
        return ""
    seconds = round(state.left.total_seconds())
    return f"{state.rate_per_second:,.0f} a second, {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"


async def _watch(services: Services, job: Job) -> int:
    state = await (_watch_bar(services, job) if out.is_terminal else _watch_lines(services, job))
    out.print(_line(state), highlight=False, soft_wrap=True)
    ended = state.live.job.state
    if ended is JobState.PARKED:
        goes_on = f"`holdfast broadcasts resume {job.job_id}` goes on, and `cancel` ends it"
        out.print(f"it paused by itself; {goes_on}", highlight=False, soft_wrap=True)
    return 0 if ended is JobState.DONE else 1


def _over(state: BroadcastState) -> bool:
    job = state.live.job
    return job.state.closed or job.state is JobState.PARKED


async def _watch_bar(services: Services, job: Job) -> BroadcastState:
    columns = (BarColumn(), TextColumn("{task.completed:,.0f} of {task.total:,.0f}"), TextColumn("{task.description}"))
    with Progress(*columns, console=out, transient=True) as progress:
        state = await _look(services, job)
        task = progress.add_task("", total=state.broadcast.total)
        while True:
            told = "; ".join(each for each in (_state(state), _speed(state), state.paused or "") if each)
            progress.update(task, completed=state.done, description=told)
            if _over(state):
                return state
            await asyncio.sleep(POLL_SECONDS)
            state = await _look(services, job)


async def _watch_lines(services: Services, job: Job) -> BroadcastState:
    said, said_at = None, float("-inf")
    clock = asyncio.get_running_loop().time
    while True:
        state = await _look(services, job)
        if _over(state):
            return state
        if state.changed != said and clock() - said_at >= PLAIN_SECONDS:
            out.print(_line(state), highlight=False, soft_wrap=True)
            said, said_at = state.changed, clock()
        await asyncio.sleep(POLL_SECONDS)
