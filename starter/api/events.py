"""/v1/events: what happened to people; /v1/digest: when they hear of it all at once."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from activities.daily_digest import CATEGORY
from starter.api.access import AuthenticatedCaller, Right
from starter.event_request import DigestBody, EventsBody
from starter.services import Services
from store.digests import DigestSettings

router = APIRouter(prefix="/v1", tags=["events"])


class EventsStored(BaseModel):
    """201 if any was stored, 200 if all were known."""

    stored: int
    known: int = Field(description="Their ids were stored before, or stand twice in this request.")


class DigestView(BaseModel):
    """`category` is what people's preferences call it."""

    enabled: bool
    zone: str
    at: str
    category: str = CATEGORY


@router.post("/events", status_code=201, summary="Store activity events")
async def add_events(
    request: Request, response: Response, caller: AuthenticatedCaller, body: EventsBody
) -> EventsStored:
    """Take up to 1,000 events. Each is in one daily digest: that of the next local digest time after its receipt.

    If the answer is an error or none, send it again: what has an `id` is not stored twice.
    """
    services: Services = request.app.state.services
    caller.need(Right.SUBMIT)
    received = await services.events.add(caller.own_tenant(), [each.event() for each in body.events])
    if not received.stored:
        response.status_code = 200
    return EventsStored(stored=received.stored, known=received.known)


@router.get("/digest", summary="When the daily digest goes out")
async def get_digest(request: Request, caller: AuthenticatedCaller) -> DigestView:
    """The tenant's wishes, or the defaults."""
    services: Services = request.app.state.services
    caller.need(Right.SEE_JOBS)
    return _view(await services.digests.settings(caller.own_tenant()))


@router.put("/digest", summary="Change when the daily digest goes out, or whether")
async def put_digest(request: Request, caller: AuthenticatedCaller, body: DigestBody) -> DigestView:
    """Replace the wishes; what is left out is the default. A day whose digest went out has no second one."""
    services: Services = request.app.state.services
    caller.need(Right.SUBMIT)
    await services.digests.set(caller.own_tenant(), body.settings())
    return _view(body.settings())


def _view(wishes: DigestSettings) -> DigestView:
    return DigestView(enabled=wishes.enabled, zone=wishes.zone, at=wishes.at)
