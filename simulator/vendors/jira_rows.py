"""Jira's objects, with the fields that answers of 2026 have."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from simulator.vendors.accounts import Account
from simulator.vendors.dataset import Item, Path
from simulator.vendors.exchange import Call, Row
from simulator.vendors.ids import uuid
from simulator.vendors.words import person, sentence, title

KEYS = ("OPS", "WEB", "APP", "DAT", "SEC", "DOC")
FIRST_PROJECT, FIRST_ISSUE = 10_000, 10_000
COMMENTS = 1 << 12  # per issue
TYPES = (("10003", "Task", 10318), ("10004", "Story", 10315), ("10005", "Bug", 10303))
PRIORITIES = (("2", "High", "high_new"), ("3", "Medium", "medium_new"), ("4", "Low", "low_new"))
STATUSES = (
    ("10000", "To Do", 2, "new", "blue-gray", "To Do"),
    ("10001", "In Progress", 4, "indeterminate", "yellow", "In Progress"),
    ("10002", "Done", 3, "done", "green", "Done"),
)
IDENTITY = ("id", "key")


def site(call: Call) -> str:
    """The address that everything is below of."""
    return f"{call.base_url}/ex/jira/{call.account.options['cloud_id']}"


def stamp(call: Call, micros: int) -> str:
    """2026-04-28T15:33:15.438+0200, in the user's zone."""
    at = datetime.fromtimestamp(micros // 1_000_000, UTC).astimezone(ZoneInfo(call.account.options["zone"]))
    return f"{at:%Y-%m-%dT%H:%M:%S}.{micros // 1000 % 1000:03d}{at:%z}"


def project_key(number: int) -> str:
    """OPS, WEB, ..., OPS2, WEB2."""
    turn, place = divmod(number, len(KEYS))
    return KEYS[place] + (str(turn + 1) if turn else "")


def id_of(account: Account, kind: str, path: Path) -> str:
    """The text that is `id`, of a user `accountId`."""
    if kind == "users":
        return account_id(account, path[0])
    if kind == "comments":
        return str(FIRST_ISSUE + path[0] * COMMENTS + path[1])
    return str((FIRST_PROJECT if kind == "projects" else FIRST_ISSUE) + path[0])


def path_of(account: Account, kind: str, text: str) -> Path | None:
    """The item of an identifier or key."""
    if kind == "users":
        users = account.dataset.of("users").numbers()
        return next(((number,) for number in users if account_id(account, number) == text), None)
    if text.isdigit():
        number = int(text) - (FIRST_PROJECT if kind == "projects" else FIRST_ISSUE)
        if number < 0:
            return None
        return divmod(number, COMMENTS) if kind == "comments" else (number,)
    if kind == "projects":
        return next(((each,) for each in account.dataset.of(kind).numbers() if project_key(each) == text), None)
    key, _, place = text.partition("-")
    projects = max(account.dataset.sizes["projects"], 1)
    found = next((number for number in range(projects) if project_key(number) == key), None)
    return ((int(place) - 1) * projects + found,) if found is not None and place.isdigit() else None


def account_id(account: Account, number: int) -> str:
    """Of a user."""
    return f"712020:{uuid(account.ordinal, number)}"


def avatars(base: str) -> Row:
    """Four sizes."""
    return {f"{size}x{size}": f"{base}/{size}" for size in (48, 24, 16, 32)}


def user(call: Call, number: int) -> Row:
    """As in an issue."""
    made, (first, last) = account_id(call.account, number), person(number)
    return {
        "self": f"{site(call)}/rest/api/3/user?accountId={made.replace(':', '%3A')}",
        "accountId": made,
        "emailAddress": f"{first}.{last}@example.com".lower(),
        "avatarUrls": avatars(f"https://avatar-management.example.com/{made}"),
        "displayName": f"{first} {last}",
        "active": True,
        "timeZone": call.account.options["zone"],
        "accountType": "atlassian",
    }


def listed_user(call: Call, item: Item) -> Row:
    """As in the list of users."""
    made, (first, last) = account_id(call.account, item.number), person(item.number)
    return {
        "self": f"{site(call)}/rest/api/3/user?accountId={made}",
        "accountId": made,
        "accountType": "atlassian",
        "avatarUrls": avatars(f"https://avatar-management.example.com/{made}"),
        "displayName": f"{first} {last}",
        "active": not item.gone,
    }


def project(call: Call, item: Item, *, full: bool = False) -> Row:
    """As in an issue, or in the list of projects."""
    key, number = project_key(item.number), str(FIRST_PROJECT + item.number)
    name = f"{key.title()} project" + (f" {item.revision}" if item.revision else "")
    avatar = f"{site(call)}/rest/api/3/universal_avatar/view/type/project/avatar/10416"
    pictures = {
        "48x48": avatar,
        "24x24": f"{avatar}?size=small",
        "16x16": f"{avatar}?size=xsmall",
        "32x32": f"{avatar}?size=medium",
    }
    made: Row = {"self": f"{site(call)}/rest/api/3/project/{number}", "id": number, "key": key, "name": name}
    if not full:
        return made | {"projectTypeKey": "software", "simplified": True, "avatarUrls": pictures}
    entity = uuid(call.account.ordinal, 77, item.number)
    return {
        "expand": "description,lead,issueTypes,url,projectKeys,permissions,insight",
        **made,
        "avatarUrls": pictures,
        "projectTypeKey": "software",
        "simplified": True,
        "style": "next-gen",
        "isPrivate": False,
        "properties": {},
        "entityId": entity,
        "uuid": entity,
    }


def issue(call: Call, item: Item, names: set[str]) -> Row:
    """With the fields that were asked for; without any it is an `id` alone, as in Jira."""
    account, number = call.account, FIRST_ISSUE + item.number
    if not names or names <= {"id"}:
        return {"id": str(number)}
    projects = max(account.dataset.sizes["projects"], 1)
    key = f"{project_key(item.number % projects)}-{item.number // projects + 1}"
    made: Row = {
        "expand": "renderedFields,names,schema,operations,editmeta,changelog,versionedRepresentations",
        "id": str(number),
        "self": f"{site(call)}/rest/api/3/issue/{number}",
        "key": key,
    }
    if names <= set(IDENTITY):
        return made
    fields = _fields(call, item)
    every = bool(names & {"*all", "*navigable"})
    return made | {"fields": {name: value for name, value in fields.items() if every or name in names}}


def comment(call: Call, issue_number: int, item: Item) -> Row:
    """On an issue."""
    number = FIRST_ISSUE + issue_number * COMMENTS + item.number
    author = user(call, item.number % max(call.account.dataset.sizes["users"], 1))
    return {
        "self": f"{site(call)}/rest/api/3/issue/{FIRST_ISSUE + issue_number}/comment/{number}",
        "id": str(number),
        "author": author,
        "body": document(sentence(call.account.seed + issue_number, item.number, item.revision)),
        "updateAuthor": author,
        "created": stamp(call, item.created),
        "updated": stamp(call, item.updated),
        "jsdPublic": True,
    }


def document(text: str) -> Row:
    """In the Atlassian Document Format."""
    return {
        "type": "doc",
        "version": 1,
        "content": [{"type": "paragraph", "content": [{"type": "text", "text": text}]}],
    }


def _fields(call: Call, item: Item) -> Row:
    account, users = call.account, max(call.account.dataset.sizes["users"], 1)
    projects = account.dataset.of("projects")
    place = item.number % max(account.dataset.sizes["projects"], 1)
    # The project of a deleted one stays in its issues, as it does in Jira's index for a while.
    of_project = projects[place] if place in projects else Item(place, item.created, item.created)
    return {
        "summary": title(account.seed, item.number, item.revision),
        "issuetype": _type(call, item.number % 3),
        "creator": user(call, item.number % users),
        "created": stamp(call, item.created),
        "project": project(call, of_project),
        "description": document(sentence(account.seed, item.number)) if item.number % 3 else None,
        "reporter": user(call, item.number % users),
        "assignee": user(call, (item.number + 1) % users) if item.number % 2 else None,
        "priority": _priority(call, item.number % 3),
        "updated": stamp(call, item.updated),
        "status": _status(call, (item.number + item.revision) % 3),
        "labels": ["customer"] if item.number % 5 == 0 else [],
    }


def _type(call: Call, place: int) -> Row:
    number, name, avatar = TYPES[place]
    return {
        "self": f"{site(call)}/rest/api/3/issuetype/{number}",
        "id": number,
        "description": f"{name}s track small, distinct pieces of work.",
        "iconUrl": f"{site(call)}/rest/api/2/universal_avatar/view/type/issuetype/avatar/{avatar}?size=medium",
        "name": name,
        "subtask": False,
        "avatarId": avatar,
        "entityId": uuid(call.account.ordinal, 78, place),
        "hierarchyLevel": 0,
    }


def _priority(call: Call, place: int) -> Row:
    number, name, icon = PRIORITIES[place]
    return {
        "self": f"{site(call)}/rest/api/3/priority/{number}",
        "iconUrl": f"https://example.atlassian.net/images/icons/priorities/{icon}.svg",
        "name": name,
        "id": number,
    }


def _status(call: Call, place: int) -> Row:
    number, name, category, key, color, label = STATUSES[place]
    return {
        "self": f"{site(call)}/rest/api/3/status/{number}",
        "description": "",
        "iconUrl": "https://example.atlassian.net/images/icons/statuses/generic.png",
        "name": name,
        "id": number,
        "statusCategory": {
            "self": f"{site(call)}/rest/api/3/statuscategory/{category}",
            "id": category,
            "key": key,
            "colorName": color,
            "name": label,
        },
    }
