"""/v1/people: who can be reached how, and when; /v1/suppressions: addresses that must not be used."""

from datetime import datetime
from functools import cache
from typing import Annotated
from zoneinfo import available_timezones

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel

from contracts.addresses import normalised
from contracts.payloads.notification import ChannelName
from starter.address_request import Address
from starter.api.access import AuthenticatedCaller, Right
from starter.api.problems import Problem
from starter.person_request import (
    MAX_DETAIL_CHARACTERS,
    PersonBody,
    PreferenceBody,
    QuietHoursBody,
    SuppressionBody,
)
from starter.services import Services
from store.people import ANY, Person, Preference, StoredTarget
from store.suppressions import Reason

router = APIRouter(prefix="/v1", tags=["people"])

PersonInPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$")]


class TargetView(BaseModel):
    """An address. `suppressed` is why it is not used now, or null."""

    target_id: str
    channel: ChannelName
    address: str
    registered_at: datetime
    suppressed: str | None


class PersonView(BaseModel):
    """A person as stored."""

    person: str
    locale: str | None
    time_zone: str | None
    quiet_hours: QuietHoursBody | None
    targets: list[TargetView]
    preferences: list[PreferenceBody]


class TargetRef(BaseModel):
    """What a key is answered that may not see contents."""

    target_id: str


class PersonRef(BaseModel):
    """What a key is answered that may not see contents."""

    person: str


class SuppressionView(BaseModel):
    """`category` `*` is all."""

    channel: ChannelName
    address: str
    category: str
    reason: Reason
    detail: str
    count: int
    created_at: datetime


@router.put("/people/{person}", summary="Make or change a person")
async def put_person(
    request: Request, caller: AuthenticatedCaller, person: PersonInPath, body: PersonBody
) -> PersonView | PersonRef:
    """Replace locale, time zone and quiet hours; and targets and preferences where given.

    A key that may not see contents is answered the person's id only.
    """
    services: Services = request.app.state.services
    caller.need(Right.SUBMIT)
    tenant = caller.own_tenant()
    if body.time_zone is not None:
        _check_zone(body.time_zone)
    await services.people.put(
        Person(
            tenant=tenant,
            person=person,
            locale=body.locale,
            zone=body.time_zone,
            quiet_start=body.quiet_hours.start if body.quiet_hours else None,
            quiet_end=body.quiet_hours.end if body.quiet_hours else None,
        ),
        [each.target() for each in body.targets] if body.targets is not None else None,
        [Preference(each.category, each.channel, each.allowed) for each in body.preferences]
        if body.preferences is not None
        else None,
    )
    if not caller.may(Right.SEE_CONTENTS):
        return PersonRef(person=person)
    return await _view(services, tenant, person)


@router.get("/people/{person}", summary="A person")
async def get_person(request: Request, caller: AuthenticatedCaller, person: PersonInPath) -> PersonView:
    """Addresses with what keeps them from being used, and preferences."""
    caller.need(Right.SEE_CONTENTS)
    return await _view(request.app.state.services, caller.own_tenant(), person)


@router.post("/people/{person}/targets", status_code=201, summary="Register an address or a device")
async def add_target(
    request: Request, caller: AuthenticatedCaller, person: PersonInPath, body: Address
) -> TargetView | TargetRef:
    """A device registers its token at every start: a token that was dead is used again."""
    services: Services = request.app.state.services
    caller.need(Right.SUBMIT)
    tenant = caller.own_tenant()
    await _existing(services, tenant, person)
    target = await services.people.add_target(tenant, person, body.target())
    if not caller.may(Right.SEE_CONTENTS):
        return TargetRef(target_id=target.target_id)
    return (await _targets(services, [target]))[0]


@router.delete("/people/{person}/targets/{target_id}", status_code=204, summary="Forget an address")
async def remove_target(request: Request, caller: AuthenticatedCaller, person: PersonInPath, target_id: str) -> None:
    """On logout, for a device."""
    services: Services = request.app.state.services
    caller.need(Right.SUBMIT)
    if not await services.people.remove_target(caller.own_tenant(), person, target_id):
        raise Problem(404, "target_not_found", f"{person} has no target {target_id}.")


@router.get("/suppressions", summary="Addresses that are not used")
async def list_suppressions(
    request: Request, caller: AuthenticatedCaller, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[SuppressionView]:
    """Newest first."""
    services: Services = request.app.state.services
    caller.need(Right.SEE_CONTENTS)
    return [
        SuppressionView(
            channel=each.channel,
            address=each.address,
            category=each.category,
            reason=each.reason,
            detail=each.detail,
            count=each.count,
            created_at=each.created_at,
        )
        for each in await services.suppressions.list(caller.own_tenant(), limit=limit)
    ]


@router.post("/suppressions", status_code=204, summary="Do not use an address any more")
async def suppress(request: Request, caller: AuthenticatedCaller, body: SuppressionBody) -> None:
    """Point your mail provider's bounce and complaint webhooks at something that calls this."""
    services: Services = request.app.state.services
    caller.need(Right.SUBMIT)
    await services.suppressions.add(
        caller.own_tenant(),
        body.channel,
        body.address,
        body.reason,
        category=body.category or ANY,
        detail=body.detail[:MAX_DETAIL_CHARACTERS],
    )


@router.delete("/suppressions", status_code=204, summary="Use an address again")
async def lift(
    request: Request,
    caller: AuthenticatedCaller,
    channel: ChannelName,
    address: str,
    category: str = ANY,
) -> None:
    """After the recipient asked for it, or the mailbox was mended."""
    services: Services = request.app.state.services
    caller.need(Right.SUBMIT)
    if not await services.suppressions.remove(caller.own_tenant(), channel, normalised(channel, address), category):
        raise Problem(404, "suppression_not_found", "This address is not suppressed for that category.")


@cache
def _zones() -> frozenset[str]:
    """Places and UTC: `EST` and `GMT0` know no daylight saving, and names such as `localtime` differ by machine."""
    return frozenset(name for name in available_timezones() if "/" in name or name == "UTC")


def _check_zone(name: str) -> None:
    if name not in _zones():
        raise Problem(
            422, "unknown_time_zone", f"{name[:64]!r} is no IANA time zone such as Europe/Berlin, and not UTC."
        )


async def _existing(services: Services, tenant: str, person: str) -> Person:
    found = await services.people.get(tenant, person)
    if found is None:
        raise Problem(404, "person_not_found", f"There is no person {person}: make one with PUT /v1/people/{person}.")
    return found


async def _view(services: Services, tenant: str, person: str) -> PersonView:
    found = await _existing(services, tenant, person)
    wishes = await services.people.preferences(tenant, person)
    quiet = None
    if found.quiet_start and found.quiet_end:
        quiet = QuietHoursBody(start=found.quiet_start, end=found.quiet_end)
    return PersonView(
        person=person,
        locale=found.locale,
        time_zone=found.zone,
        quiet_hours=quiet,
        targets=await _targets(services, await services.people.targets(tenant, person)),
        preferences=[
            PreferenceBody.model_validate({"category": each.category, "channel": each.channel, "allowed": each.allowed})
            for each in wishes
        ],
    )


async def _targets(services: Services, found: list[StoredTarget]) -> list[TargetView]:
    now = services.clock.now()
    suppressions = await services.suppressions.of(found)
    views = []
    for target in found:
        reasons = [
            each.reason.value if each.category == ANY else f"{each.reason.value} ({each.category})"
            for each in suppressions
            if (each.channel, each.address) == (target.channel, target.address)
            and each.applies(target, each.category, now)
        ]
        views.append(
            TargetView(
                target_id=target.target_id,
                channel=target.channel,
                address=target.address,
                registered_at=target.registered_at,
                suppressed=", ".join(reasons) or None,
            )
        )
    return views
