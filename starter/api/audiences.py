"""/v1/audiences: recipients saved under a name, for broadcasts to come."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from starter.api.access import AuthenticatedCaller, Right
from starter.api.broadcast_views import AudienceList, AudienceView, audience_view, seen_report
from starter.api.problems import Problem
from starter.api.recipient_body import LINES, NDJSON, body_lines, media_type, refused
from starter.audiences import remove_audience, save_audience
from starter.person_request import Slug
from starter.recipient_intake import RecipientsRefused, Report
from starter.services import Services

router = APIRouter(prefix="/v1/audiences", tags=["audiences"])

SAVE_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {NDJSON: LINES}}}
Name = Annotated[Slug, Path(examples=["beta-testers"])]


@router.put("/{name}", summary="Save an audience", openapi_extra=SAVE_BODY, response_model=AudienceView)
async def put_audience(
    request: Request,
    caller: AuthenticatedCaller,
    name: Name,
    strict: Annotated[bool, Query(description="Refuse all for one bad line.")] = False,  # noqa: FBT002 - a query parameter
) -> AudienceView | JSONResponse:
    """Give the recipients in the body the name, as lines of a broadcast and without a message.

    They replace those that had it. Broadcasts that were sent to them before go on as they were.
    """
    services: Services = request.app.state.services
    caller.need(Right.SUBMIT)
    tenant = caller.own_tenant()
    if media_type(request) != NDJSON:
        raise Problem(415, "not_ndjson", f"Send a line of JSON per recipient, with `Content-Type: {NDJSON}`.")
    async with body_lines(request) as lines:
        try:
            report = await save_audience(services, tenant, name, lines, strict=strict)
        except RecipientsRefused as error:
            return refused(error, caller)
    found = await services.recipients.audience(tenant, name)
    if found is None:
        raise Problem(409, "conflict", f"The audience {name!r} was deleted while it was saved: save it again.")
    return audience_view(found, seen_report(caller, report))


@router.get("", summary="List audiences")
async def list_audiences(request: Request, caller: AuthenticatedCaller) -> AudienceList:
    """The tenant's, by name."""
    services: Services = request.app.state.services
    caller.need(Right.SEE_JOBS)
    return AudienceList(
        audiences=[audience_view(each) for each in await services.recipients.audiences(caller.own_tenant())]
    )


@router.get("/{name}", summary="An audience")
async def get_audience(request: Request, caller: AuthenticatedCaller, name: Name) -> AudienceView:
    """How many it has, and what was left out when it was saved."""
    services: Services = request.app.state.services
    caller.need(Right.SEE_JOBS)
    tenant = caller.own_tenant()
    found = await services.recipients.audience(tenant, name)
    if found is None:
        raise _not_found(name)
    kept = await services.recipients.get(tenant, found.set_id)
    return audience_view(found, seen_report(caller, Report.model_validate(kept.report if kept else {})))


@router.delete("/{name}", status_code=204, summary="Delete an audience")
async def delete_audience(request: Request, caller: AuthenticatedCaller, name: Name) -> Response:
    """Forget the name and its recipients. Broadcasts that were sent to them go on."""
    services: Services = request.app.state.services
    caller.need(Right.SUBMIT)
    if not await remove_audience(services, caller.own_tenant(), name):
        raise _not_found(name)
    return Response(status_code=204)


def _not_found(name: str) -> Problem:
    return Problem(404, "audience_not_found", f"There is no audience {name!r}: `GET /v1/audiences` lists them.")
