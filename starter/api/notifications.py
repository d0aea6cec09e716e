"""/v1/notifications: say something to somebody, once."""

from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Request
from opentelemetry import trace
from pydantic import BaseModel, ConfigDict, Field
from structlog.contextvars import bind_contextvars

from activities.templates import TemplateBroken, TemplateDataError, UnknownTemplate
from contracts.payloads.job import JobState
from starter.api.access import AuthenticatedCaller, Right
from starter.api.files import IdempotencyKey
from starter.api.problems import Problem
from starter.api.views import EXAMPLE_JOB, JobLinks, links
from starter.notification_request import NotificationBody
from starter.services import Services
from starter.submit_notification import InvalidNotification, submit_notification
from store.submissions import IdempotencyConflict

router = APIRouter(prefix="/v1/notifications", tags=["notifications"])


class NotificationAccepted(BaseModel):
    """202: stored and started. Its job's result says what became of every target."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "job_id": EXAMPLE_JOB,
                "state": "running",
                "deduplicated": False,
                "links": {
                    "status": f"http://127.0.0.1:8000/v1/jobs/{EXAMPLE_JOB}",
                    "events": f"http://127.0.0.1:8000/v1/jobs/{EXAMPLE_JOB}/events",
                    "web_ui": f"http://127.0.0.1:8233/namespaces/default/workflows/notification:acme:{EXAMPLE_JOB}",
                },
            }
        }
    )

    job_id: UUID
    state: JobState
    deduplicated: bool = Field(description="True if the same was asked before: this is that job.")
    links: JobLinks


@router.post("", status_code=202, summary="Send a notification")
async def send_notification(
    request: Request,
    caller: AuthenticatedCaller,
    afterwards: BackgroundTasks,
    body: NotificationBody,
    idempotency_key: IdempotencyKey = None,
) -> NotificationAccepted:
    """Send one message to a person or an address, by the channels they want and not while they sleep."""
    services: Services = request.app.state.services
    caller.need(Right.SUBMIT)
    span = trace.get_current_span().get_span_context()
    try:
        submitted = await submit_notification(
            services,
            caller.own_tenant(),
            body,
            idempotency_key=idempotency_key,
            trace_id=f"{span.trace_id:032x}" if span.is_valid else None,
        )
    except IdempotencyConflict as error:
        raise Problem(409, "idempotency_conflict", str(error)) from error
    except UnknownTemplate as error:
        raise Problem(422, "unknown_template", str(error)) from error
    except TemplateDataError as error:
        raise Problem(422, "template_data_missing", str(error)) from error
    except TemplateBroken as error:
        detail = f"A template cannot be used; nothing was sent. Tell whoever keeps the templates: {error}"
        raise Problem(500, "template_broken", detail) from error
    except InvalidNotification as error:
        raise Problem(422, "invalid_notification", str(error)) from error
    if submitted.first_run_id:
        afterwards.add_task(services.jobs.started, submitted.job.job_id, submitted.first_run_id)
    bind_contextvars(job_id=str(submitted.job.job_id))
    return NotificationAccepted(
        job_id=submitted.job.job_id,
        state=submitted.job.state,
        deduplicated=submitted.deduplicated,
        links=links(services.settings, services.temporal.namespace, submitted.job),
    )
