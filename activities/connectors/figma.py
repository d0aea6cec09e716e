"""Figma: a team's projects, their files, and the comments and versions of each. https://developers.figma.com/docs/rest-api/.

The lists of projects and files are closed to public OAuth apps; a customer's own app may ask for them.
"""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from activities.connectors import spec
from activities.connectors.judging import words
from activities.connectors.paging import OnePage, UrlInBody
from activities.connectors.spec import MINUTE, Answer, Budget, Connector, Judgement, Meaning, OAuth, Resource, Row
from activities.connectors.vendor_times import retry_after

LIMITS = "https://developers.figma.com/docs/rest-api/rate-limits/"
# A Dev or Full seat on the Professional plan. View and Collab seats have 5 a minute, Starter 25, Enterprise 100.
TIER_2 = Budget("tier_2", 50, MINUTE, LIMITS)
DEAD_TOKEN = ("invalid token", "token expired")
TOO_SLOW = ("timeout", "timed out", "too large")


class Settings(spec.Settings):
    """Which team: the number behind /team/ in the address of its page."""

    team_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


class Project(Row):
    """https://developers.figma.com/docs/rest-api/projects-endpoints/."""

    id: str
    name: str


class File(Row):
    """https://developers.figma.com/docs/rest-api/projects-endpoints/."""

    key: str
    name: str
    last_modified: datetime


class Comment(Row):
    """https://developers.figma.com/docs/rest-api/comments-types/."""

    id: str
    message: str
    created_at: datetime


class Version(Row):
    """https://developers.figma.com/docs/rest-api/version-history-types/."""

    id: str
    created_at: datetime


def _judge(answer: Answer) -> Judgement | None:
    """Two shapes of errors, `err` and `message`; and what is too large for it is refused as if we had asked badly."""
    said = words(answer)
    lower = said.lower()
    if answer.status == 429:  # noqa: PLR2004 - too many requests; Retry-After may be days where a seat has a month's limit
        seat, plan = (answer.headers.get(f"x-figma-{name}", "") for name in ("rate-limit-type", "plan-tier"))
        detail = f"{said} (seat: {seat or 'not told'}, plan: {plan or 'not told'})"
        return Judgement(Meaning.THROTTLED, "http_429", detail, retry_after(answer) or MINUTE)
    if answer.status == 403 and any(each in lower for each in DEAD_TOKEN):  # noqa: PLR2004 - forbidden
        return Judgement(Meaning.UNAUTHORIZED, "http_403", said)
    if answer.status == 400 and any(each in lower for each in TOO_SLOW):  # noqa: PLR2004 - bad request
        return Judgement(Meaning.OVERLOADED, "too_slow", said)
    return None


FIGMA = Connector(
    name="figma",
    host="https://api.figma.com",
    base="",
    docs="https://developers.figma.com/docs/rest-api/",
    auth=OAuth("https://api.figma.com", "/v1/oauth/refresh", basic=True),
    settings=Settings,
    budgets=(),
    judge=_judge,
    resources=(
        Resource("projects", "/v1/teams/{team_id}/projects", Project, OnePage(), items="projects", budgets=(TIER_2,)),
        Resource(
            "files",
            "/v1/projects/{project}/files",
            File,
            OnePage(),
            row_id="key",
            items="files",
            updated="last_modified",
            omit=("thumbnail_url",),
            parent="projects",
            of_parent={"project": "id"},
            budgets=(TIER_2,),
        ),
        Resource(
            "comments",
            "/v1/files/{file}/comments",
            Comment,
            OnePage(),
            items="comments",
            parent="files",
            of_parent={"file": "key"},
            budgets=(TIER_2,),
        ),
        Resource(
            "versions",
            "/v1/files/{file}/versions",
            Version,
            # The newest come first, so that the older ones are at the page that it calls the previous one.
            UrlInBody("page_size", 50, at="pagination.prev_page"),
            items="versions",
            omit=("thumbnail_url",),
            parent="files",
            of_parent={"file": "key"},
            changed=True,
            budgets=(TIER_2,),
        ),
    ),
)
