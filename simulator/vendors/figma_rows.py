"""Figma's objects, with the fields that answers of 2026 have."""

from simulator.vendors.accounts import Account
from simulator.vendors.dataset import DAY, Item, Path
from simulator.vendors.exchange import Row, zulu
from simulator.vendors.ids import read, shuffled, sorted_out, uuid, written
from simulator.vendors.words import person, sentence, title

FIRST_PROJECT = 604_000_000
FIRST_COMMENT = 1_700_000_000
FIRST_VERSION = 2_300_000_000_000_000_000
PROJECTS, FILES, ITEMS = 1_000, 10_000, 100_000  # per account, project, file
KEY_BITS, KEY_WIDTH, HEX_BITS = 128, 22, 160
PEOPLE = 6


def _joined(account: Account, path: Path) -> int:
    """A number for a project, file, or something in a file."""
    number = account.ordinal
    for place, size in zip(path, (PROJECTS, FILES, ITEMS), strict=False):
        number = number * size + place
    return number


def _parted(account: Account, number: int, depth: int) -> Path | None:
    """The path in a number, None where it is of another account."""
    path: Path = ()
    for size in (PROJECTS, FILES, ITEMS)[:depth][::-1]:
        number, place = divmod(number, size)
        path = (place, *path)
    return path if number == account.ordinal else None


def id_of(account: Account, kind: str, path: Path) -> str:
    """`id`, or `key` of a file or component."""
    number = _joined(account, path)
    if kind == "projects":
        return str(FIRST_PROJECT + number)
    if kind == "files":
        return written(shuffled(number, KEY_BITS), KEY_WIDTH)
    if kind == "components":
        return f"{shuffled(number, HEX_BITS):040x}"
    return str((FIRST_COMMENT if kind == "comments" else FIRST_VERSION) + number)


def path_of(account: Account, kind: str, text: str) -> Path | None:
    """The item of an id or key."""
    if kind == "files":
        number = read(text)
        return None if number is None else _parted(account, sorted_out(number, KEY_BITS), 2)
    if kind == "components":
        try:
            return _parted(account, sorted_out(int(text, 16), HEX_BITS), 1)
        except ValueError:
            return None
    if not text.isdigit():
        return None
    if kind == "projects":
        return _parted(account, int(text) - FIRST_PROJECT, 1)
    return _parted(account, int(text) - (FIRST_COMMENT if kind == "comments" else FIRST_VERSION), 3)


def version_id(account: Account, path: Path) -> str:
    """Of a version."""
    return id_of(account, "versions", path)


def user(account: Account, number: int) -> Row:
    """Who did it."""
    first, last = person(number % PEOPLE)
    return {
        "handle": f"{first} {last}",
        "img_url": f"https://s3-alpha.figma.com/profile/{uuid(account.ordinal, 81, number % PEOPLE)}",
        "id": str(1_639_747_346_696_283_000 + account.ordinal * 100 + number % PEOPLE),
    }


def project(account: Account, item: Item) -> Row:
    """Of a team."""
    name = f"Project {item.number + 1}" + (f", renamed {item.revision}" if item.revision else "")
    return {"id": id_of(account, "projects", (item.number,)), "name": name}


def file(account: Account, path: Path, item: Item) -> Row:
    """Of a project."""
    return {
        "key": id_of(account, "files", path),
        "name": title(account.seed, _joined(account, path)),
        "thumbnail_url": f"https://s3-alpha.figma.com/thumbnails/{uuid(account.ordinal, 82, *path)}",
        "last_modified": zulu(item.updated),
    }


def comment(account: Account, path: Path, item: Item) -> Row:
    """Of a file; every fourth is a reply to the one before, and has no place of its own."""
    reply = item.number % 4 == 3
    return {
        "id": id_of(account, "comments", path),
        "uuid": None,
        "file_key": id_of(account, "files", path[:2]),
        "parent_id": id_of(account, "comments", (*path[:2], item.number - 1)) if reply else "",
        "user": user(account, item.number),
        "created_at": zulu(item.created, millis=True),
        "resolved_at": zulu(item.updated, millis=True) if item.revision % 2 else None,
        "message": sentence(account.seed, _joined(account, path), item.revision),
        "reactions": [],
        "client_meta": None
        if reply
        else {"node_id": f"{item.number + 1}:2", "node_offset": {"x": 20, "y": 20}, "stable_path": None},
        "order_id": None if reply else str(item.number + 1),
    }


def version(account: Account, path: Path, item: Item) -> Row:
    """Of a file; every tenth has a name."""
    named = item.number % 10 == 9
    return {
        "id": version_id(account, path),
        "created_at": zulu(item.created),
        "label": f"Milestone {item.number // 10 + 1}" if named else None,
        "description": sentence(account.seed, item.number) if named else None,
        "user": user(account, item.number),
        "thumbnail_url": f"https://s3-alpha-sig.figma.com/thumbnails/{uuid(account.ordinal, 83, *path)}"
        f"?Expires={(item.created + 14 * DAY) // 1_000_000}",
    }


def component(account: Account, item: Item) -> Row:
    """Published by the team."""
    return {
        "key": id_of(account, "components", (item.number,)),
        "file_key": id_of(account, "files", (0, 0)),
        "node_id": f"{91 + item.number}:1",
        "thumbnail_url": f"https://s3-alpha.figma.com/checkpoints/{uuid(account.ordinal, 84, item.number)}.png",
        "name": f"Button/{item.number + 1}",
        "description": sentence(account.seed, item.number, item.revision),
        "created_at": zulu(item.created, millis=True),
        "updated_at": zulu(item.updated, millis=True),
        "containing_frame": {"name": "Buttons", "nodeId": "90:1", "pageId": "0:1", "pageName": "Library"},
        "user": user(account, item.number),
    }
