"""/v1/unsubscribe: the link in every mail. GET asks, because mail scanners follow links; POST does it (RFC 8058)."""

from html import escape

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from activities.unsubscribe import InvalidLink, Unsubscription
from starter.api.problems import Problem
from starter.services import Services
from store.suppressions import Reason

router = APIRouter(prefix="/v1/unsubscribe", tags=["people"])

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Unsubscribe</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem}}
button{{font:inherit;padding:.5rem 1rem}}</style></head><body>{body}</body></html>"""


def _page(body: str) -> HTMLResponse:
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return HTMLResponse(PAGE.format(body=body), headers=headers)


def _read(request: Request, token: str) -> tuple[Services, Unsubscription]:
    services: Services = request.app.state.services
    try:
        return services, services.unsubscribing.read(token)
    except InvalidLink as error:
        raise Problem(404, "invalid_link", str(error)) from error


@router.get("/{token}", summary="Ask before unsubscribing", response_class=HTMLResponse)
async def confirm(request: Request, token: str) -> HTMLResponse:
    """A page with one button."""
    _, link = _read(request, token)
    return _page(
        f"<h1>Unsubscribe</h1><p>Stop mails about <b>{escape(link.category)}</b> to this address?</p>"
        '<form method="post"><button>Unsubscribe</button></form>'
    )


@router.post("/{token}", summary="Unsubscribe", response_class=HTMLResponse)
async def unsubscribe(request: Request, token: str) -> HTMLResponse:
    """No login, no further question; twice is once."""
    services, link = _read(request, token)
    target = await services.people.target(link.tenant, link.target_id)
    if target is not None:
        await services.suppressions.add(
            link.tenant, target.channel, target.address, Reason.UNSUBSCRIBED, category=link.category
        )
    return _page("<h1>Done</h1><p>You will get no more of these mails.</p>")
