"""`holdfast notify …`: send, and look at templates."""

import asyncio
import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.table import Table
from temporalio.service import RPCError

from activities.templates import Templates
from contracts.payloads.job import JobState
from contracts.payloads.notification import ChannelName, Route
from runtime.settings import Settings
from starter.command import complain, out, run_command
from starter.job_state import look_at
from starter.notification_request import NotificationBody
from starter.request_model import in_words
from starter.services import Services, open_services
from starter.submit_notification import submit_notification
from starter.tenant import checked_tenant
from store.jobs import Job

notify = typer.Typer(help="Notifications.", no_args_is_help=True)

POLL_SECONDS = 0.2


class Form(StrEnum):
    """A form of a template."""

    TEXT = "text"
    HTML = "html"
    SLACK = "slack"
    PUSH = "push"


def _tenant(name: str) -> str:
    try:
        return checked_tenant(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@notify.command("send")
def send(
    tenant: Annotated[str, typer.Option(help="Whose recipient.", callback=_tenant)],
    to: Annotated[str, typer.Option(help="A person's id, a mail address, or `<channel>:<address>`.")],
    template: Annotated[str | None, typer.Option(help="See `holdfast notify templates`.")] = None,
    data: Annotated[str, typer.Option(help="JSON for the template, or `@file`.")] = "{}",
    subject: Annotated[str | None, typer.Option(help="Without a template.")] = None,
    text: Annotated[str | None, typer.Option(help="Without a template.")] = None,
    channel: Annotated[list[Route] | None, typer.Option(help="In order of preference; may be repeated.")] = None,
    urgent: Annotated[bool, typer.Option("--urgent", help="Ignore quiet hours.")] = False,  # noqa: FBT002 - an option
    expires: Annotated[str | None, typer.Option(help="A time, or a duration such as PT2H.")] = None,
    dedupe_key: Annotated[str | None, typer.Option(help="Send once per recipient and key.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="The same command again sends nothing new.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it ended, and say how.")] = False,  # noqa: FBT002 - an option
) -> None:
    """Send one message."""
    settings = Settings()
    asked: dict[str, Any] = {
        "recipient": _recipient(to),
        "template": template,
        "data": _json(data),
        "content": {"subject": subject, "text": text} if subject or text else None,
        "channels": channel or None,
        "urgency": "urgent" if urgent else "normal",
        "expires": expires,
        "dedupe_key": dedupe_key,
    }
    try:
        body = NotificationBody.model_validate(asked)
    except ValidationError as error:
        problems = [f"{each['field']}: {each['problem']}".lstrip(": ") for each in in_words(error.errors())]
        raise typer.BadParameter("; ".join(problems)) from error

    async def work() -> int:
        async with open_services(settings, role="cli") as opened:
            await opened.database.ping()
            services = replace(opened, channels=frozenset(ChannelName))  # the worker knows which it has
            try:
                submitted = await submit_notification(
                    services, tenant, body, idempotency_key=idempotency_key, trace_id=None
                )
            except RPCError as error:
                complain(_not_started(error, repeatable=bool(idempotency_key or dedupe_key)))
                return 1
            if submitted.first_run_id:
                await services.jobs.started(submitted.job.job_id, submitted.first_run_id)
            again = " (asked before: this is that job)" if submitted.deduplicated else ""
            out.print(f"job {submitted.job.job_id}{again}", highlight=False)
            return await _report(services, submitted.job) if wait else 0

    run_command(work(), settings)


@notify.command("templates")
def list_templates() -> None:
    """All templates: category, channels, locales."""
    settings = Settings()
    templates = Templates(settings.templates_dir)
    table = Table("template", "category", "channels", "locales")
    for name in templates.names():
        row = templates.get(name)
        joined = ", " if row.every else ", then "
        table.add_row(name, row.category, joined.join(row.channels), ", ".join(row.locales))
    out.print(table)


@notify.command("preview")
def preview(
    template: str,
    locale: Annotated[str | None, typer.Option(help="Such as de.")] = None,
    data: Annotated[str, typer.Option(help="JSON or `@file`; by default the template's example.")] = "",
    form: Annotated[Form, typer.Option(help="What to print.")] = Form.TEXT,
) -> None:
    """Print one form of a template, for example `--form html > mail.html`."""
    settings = Settings()

    async def work() -> None:
        templates = Templates(settings.templates_dir)
        given = _json(data) if data else templates.get(template).example
        unsubscribe = None if templates.get(template).mandatory else "https://example.com/unsubscribe"
        content = templates.render(template, locale, given, unsubscribe_url=unsubscribe)
        forms = {
            Form.TEXT: f"{content.subject}\n\n{content.text}",
            Form.HTML: content.html or "",
            Form.SLACK: json.dumps(content.slack_blocks, indent=2, ensure_ascii=False),
            Form.PUSH: f"{content.push_title}\n{content.push_body}",
        }
        typer.echo(forms[form])

    run_command(work(), settings)


def _recipient(to: str) -> str | dict[str, Any]:
    channel, separator, address = to.partition(":")
    if separator and channel in list(ChannelName):
        return {"channel": channel, "address": address}
    return {"channel": "email", "address": to} if "@" in to else to


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint="--data") from error
    if not isinstance(value, dict):
        raise typer.BadParameter("must be a JSON object", param_hint="--data")
    return value


def _not_started(error: RPCError, *, repeatable: bool) -> str:
    told = f"Temporal does not answer ({error.status.name}), so the message is stored and not sent. "
    if repeatable:
        return told + "Run the same command again: it starts that message."
    return told + "Run the command again for another one; with --idempotency-key it would have been the same."


async def _report(services: Services, job: Job) -> int:
    while True:
        found = await services.jobs.get(job.tenant, job.job_id)
        assert found is not None
        seen = (await look_at(services, found)).job
        if seen.state is JobState.PARKED:
            how = f"resolve it with `holdfast jobs resolve {seen.job_id} retry` (or discard)"
            out.print(f"parked: {seen.error or seen.cause}; {how}", highlight=False)
            return 1
        if seen.state.closed:
            break
        await asyncio.sleep(POLL_SECONDS)
    result = seen.result or {}
    out.print(f"{seen.state.value}: {result.get('outcome') or seen.error}", highlight=False)
    table = Table("channel", "outcome", "vendor id", "attempts", "code")
    for target in result.get("targets", []):
        cells = (target["channel"], target["outcome"], target["vendor_id"], target["attempts"], target["code"])
        table.add_row(*(str(cell or "") for cell in cells))
    out.print(table)
    return 0 if result.get("outcome") in {"sent", "merged"} else 1
