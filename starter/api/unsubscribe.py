"""/v1/unsubscribe: the link in every mail. GET asks, because mail scanners follow links; POST does it (RFC 8058).

Whoever opens it reads a page, in their language where it is known, also when the link is of no use.
"""

from dataclasses import dataclass
from html import escape

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from activities.unsubscribe import InvalidLink, Unsubscription
from starter.services import Services
from store.people import StoredTarget
from store.suppressions import Reason

router = APIRouter(prefix="/v1/unsubscribe", tags=["people"])

PAGE = """<!doctype html><html lang="{language}"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem;overflow-wrap:anywhere}}
button{{font:inherit;padding:.5rem 1rem}}</style></head><body>{body}</body></html>"""


@dataclass(frozen=True, slots=True)
class Words:
    """Of one language. `question` and `done` are HTML with the categories in `{}`."""

    title: str
    question: str
    done_title: str
    done: str
    gone_title: str
    gone: str
    invalid_title: str
    invalid: str


LANGUAGES = {
    "en": Words(
        title="Unsubscribe",
        question="Stop mails about {} to this address?",
        done_title="Done",
        done="You will get no more mails about {}.",
        gone_title="Nothing was changed",
        gone="This address is no longer registered, so no mail goes to it. Should you get another one, use its link.",
        invalid_title="This link does not work",
        invalid="It was cut short or changed, so nothing was changed. Open the whole link in the mail.",
    ),
    "de": Words(
        title="Abbestellen",
        question="Keine Mails zu {} mehr an diese Adresse?",
        done_title="Erledigt",
        done="Sie erhalten keine Mails zu {} mehr.",
        gone_title="Es wurde nichts geändert",
        gone="Diese Adresse ist nicht mehr eingetragen und erhält keine Mails. Kommt doch noch eine, hilft deren Link.",
        invalid_title="Dieser Link funktioniert nicht",
        invalid="Er ist unvollständig, es wurde nichts geändert. Öffnen Sie bitte den ganzen Link der Mail.",
    ),
}
DEFAULT = "en"


@router.get("/{token}", summary="Ask before unsubscribing", response_class=HTMLResponse)
async def confirm(request: Request, token: str) -> HTMLResponse:
    """A page with one button; 404 for a link that is not ours, 410 for an address that is no longer registered."""
    services: Services = request.app.state.services
    link, target = await _resolve(services, token)
    if link is None or target is None:
        return _useless(link)
    language = await _language(services, target)
    words = LANGUAGES[language]
    button = f'<form method="post"><button>{words.title}</button></form>'
    return _page(language, words.title, words.question.format(_named(link)), button)


@router.post("/{token}", summary="Unsubscribe", response_class=HTMLResponse)
async def unsubscribe(request: Request, token: str) -> HTMLResponse:
    """No login, no further question; twice is once. 404 and 410 as for GET."""
    services: Services = request.app.state.services
    link, target = await _resolve(services, token)
    if link is None or target is None:
        return _useless(link)
    for category in link.categories:
        await services.suppressions.add(
            link.tenant, target.channel, target.address, Reason.UNSUBSCRIBED, category=category
        )
    language = await _language(services, target)
    words = LANGUAGES[language]
    return _page(language, words.done_title, words.done.format(_named(link)))


async def _resolve(services: Services, token: str) -> tuple[Unsubscription | None, StoredTarget | None]:
    try:
        link = services.unsubscribing.read(token)
    except InvalidLink:
        return None, None
    return link, await services.people.target(link.tenant, link.target_id)


async def _language(services: Services, target: StoredTarget) -> str:
    person = await services.people.get(target.tenant, target.person) if target.person else None
    language = (person.locale if person and person.locale else DEFAULT).partition("-")[0]
    return language if language in LANGUAGES else DEFAULT


def _named(link: Unsubscription) -> str:
    return ", ".join(f"<b>{escape(category)}</b>" for category in link.categories)


def _useless(link: Unsubscription | None) -> HTMLResponse:
    """In all languages: whose it is cannot be known."""
    titles = [words.gone_title if link else words.invalid_title for words in LANGUAGES.values()]
    texts = [words.gone if link else words.invalid for words in LANGUAGES.values()]
    return _page(DEFAULT, " / ".join(titles), "</p><p>".join(texts), status=410 if link else 404)


def _page(language: str, title: str, text: str, more: str = "", *, status: int = 200) -> HTMLResponse:
    body = f"<h1>{title}</h1><p>{text}</p>{more}"
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return HTMLResponse(PAGE.format(language=language, title=title, body=body), status, headers)
