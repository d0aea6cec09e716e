"""Slack's objects, with the fields that answers of 2026 have."""

import re

from simulator.vendors.accounts import Account
from simulator.vendors.dataset import Item, Path
from simulator.vendors.exchange import Row
from simulator.vendors.ids import read, shuffled, sorted_out, uuid, written
from simulator.vendors.words import person, sentence

BITS, WIDTH = 46, 9
PER_ACCOUNT = 1 << 20
PREFIXES = {"channels": "C0", "users": "U0"}
SALTS = {"channels": 0, "users": 1}
NAMES = ("general", "random", "engineering", "design", "support", "sales", "incidents", "lunch")
TS = re.compile(r"(\d{1,12})(?:\.(\d{1,6}))?$")
APP, BOT = "A09BGMXLWL9", "B0AHXCCPN2U"


def ts(micros_: int) -> str:
    """1773301324.033409."""
    return f"{micros_ // 1_000_000}.{micros_ % 1_000_000:06d}"


def micros(text: str) -> int | None:
    """Of a ts, None where it is none."""
    found = TS.match(text)
    return int(found[1]) * 1_000_000 + int((found[2] or "").ljust(6, "0")) if found else None


def team_id(ordinal: int) -> str:
    """Of a workspace."""
    return f"T0{written(shuffled(ordinal * 4 + 2, BITS), WIDTH, 36)}"


def id_of(account: Account, kind: str, path: Path) -> str:
    """C0..., U0..., channel/ts, or channel/thread/ts."""
    if kind in PREFIXES:
        number = (account.ordinal * PER_ACCOUNT + path[0]) * 2 + SALTS[kind]
        return PREFIXES[kind] + written(shuffled(number, BITS), WIDTH, 36)
    above = id_of(account, "channels" if kind == "messages" else "messages", path[:-1])
    return f"{above}/{ts(account.dataset.of(kind, path[:-1])[path[-1]].created)}"


def path_of(account: Account, kind: str, text: str) -> Path | None:
    """The item of an identifier."""
    if kind in PREFIXES:
        number = read(text[2:], 36) if text[:2] == PREFIXES[kind] else None
        place, salt = divmod(-1 if number is None else sorted_out(number, BITS), 2)
        ordinal, item = divmod(place, PER_ACCOUNT)
        return (item,) if number is not None and salt == SALTS[kind] and ordinal == account.ordinal else None
    above, _, stamp = text.rpartition("/")
    parents = account.find("channels" if kind == "messages" else "messages", above)
    created = micros(stamp)
    found = None
    if parents is not None and created is not None:
        found = account.dataset.of(kind, parents).created_at(created)
    return None if parents is None or found is None else (*parents, found)


def is_archived(number: int) -> bool:
    """Every eighth channel."""
    return number % 8 == 7


def channel(account: Account, item: Item) -> Row:
    """A public channel."""
    turn, place = divmod(item.number, len(NAMES))
    name = NAMES[place] + (f"-{turn + 1}" if turn else "")
    team, creator, created = account.options["team_id"], id_of(account, "users", (0,)), item.created // 1_000_000
    return {
        "id": id_of(account, "channels", (item.number,)),
        "created": created,
        "creator": creator,
        "is_org_shared": False,
        "is_im": False,
        "context_team_id": team,
        "updated": item.updated // 1000,
        "name": name,
        "name_normalized": name,
        "is_channel": True,
        "is_group": False,
        "is_mpim": False,
        "is_private": False,
        "is_archived": is_archived(item.number),
        "is_general": item.number == 0,
        "is_shared": False,
        "is_ext_shared": False,
        "unlinked": 0,
        "is_pending_ext_shared": False,
        "pending_shared": [],
        "parent_conversation": None,
        "purpose": {"value": f"Everything about {name}. {'Changed. ' * item.revision}".strip(), "creator": creator}
        | {"last_set": created},
        "topic": {"value": "", "creator": "", "last_set": 0},
        "shared_team_ids": [team],
        "pending_connected_team_ids": [],
        "is_member": True,
        "num_members": len(account.dataset.of("users")),
        "properties": {
            "tabs": [{"type": "bookmarks", "label": "", "id": "bookmarks"}],
            "tabz": [{"type": "bookmarks"}],
            "use_case": "welcome",
        },
        "previous_names": [],
    }


def message(account: Account, path: Path, item: Item) -> Row:
    """In a channel: somebody's, a bot's, or that somebody has joined."""
    if item.number % 50 == 49:
        who = author(account, item.number)
        text = f"<@{who}> has joined the channel"
        return {"subtype": "channel_join", "user": who, "text": text, "type": "message", "ts": ts(item.created)}
    made = _said(account, path, item, bot=item.number % 7 == 3)
    if account.dataset.size("replies", path):
        replies = account.dataset.of("replies", path)
        last = replies.slice(0, 1, descending=True)[0]
        writers = list(dict.fromkeys(author(account, number) for number in replies.numbers()[:5]))
        made |= {
            "thread_ts": made["ts"],
            "reply_count": len(replies),
            "reply_users_count": len(writers),
            "latest_reply": ts(last.created),
            "reply_users": writers,
            "is_locked": False,
            "subscribed": False,
        }
    return made


def reply(account: Account, path: Path, item: Item) -> Row:
    """In a thread."""
    parent = account.dataset.of("messages", path[:1])[path[1]]
    return _said(account, path, item) | {
        "thread_ts": ts(parent.created),
        "parent_user_id": author(account, parent.number),
    }


def author(account: Account, number: int) -> str:
    """The identifier of the user who wrote it."""
    return id_of(account, "users", (number % max(account.dataset.sizes["users"], 1),))


def user(account: Account, item: Item) -> Row:
    """A member; one who has left lacks much."""
    number, (first, last) = id_of(account, "users", (item.number,)), person(item.number)
    team, name = account.options["team_id"], f"{first}.{last}".lower()
    picture = f"https://secure.gravatar.com/avatar/{uuid(account.ordinal, 91, item.number).replace('-', '')}"
    profile = {
        "real_name": f"{first} {last}",
        "display_name": name,
        "avatar_hash": picture[-12:],
        "real_name_normalized": f"{first} {last}",
        "display_name_normalized": name,
        **{f"image_{size}": f"{picture}.jpg?s={size}" for size in (24, 32, 48, 72, 192, 512)},
        "first_name": first,
        "last_name": last,
        "team": team,
        "email": f"{name}@example.com",
        "title": "",
        "phone": "",
        "skype": "",
        "status_text": "busy" * (item.revision % 2),
        "status_text_canonical": "",
        "status_emoji": "",
        "status_emoji_display_info": [],
        "status_expiration": 0,
    }
    if item.gone:
        return {
            "id": number,
            "name": name,
            "is_bot": False,
            "updated": item.updated // 1_000_000,
            "is_app_user": False,
            "team_id": team,
            "deleted": True,
            "profile": profile,
        }
    return {
        "id": number,
        "name": name,
        "is_bot": False,
        "updated": item.updated // 1_000_000,
        "is_app_user": False,
        "team_id": team,
        "deleted": False,
        "color": "8469bc",
        "is_email_confirmed": True,
        "real_name": f"{first} {last}",
        "tz": "Europe/Warsaw",
        "tz_label": "Central European Time",
        "tz_offset": 3600,
        "is_admin": item.number == 0,
        "is_owner": item.number == 0,
        "is_primary_owner": item.number == 0,
        "is_restricted": False,
        "is_ultra_restricted": False,
        "who_can_share_contact_card": "EVERYONE",
        "profile": profile,
    }


def _said(account: Account, path: Path, item: Item, *, bot: bool = False) -> Row:
    who, team = author(account, item.number), account.options["team_id"]
    text = sentence(account.seed + sum(path), item.number, item.revision)
    made: Row = {"user": who, "type": "message", "ts": ts(item.created)}
    if bot:
        made |= {"bot_id": BOT, "app_id": APP}
    else:
        made["client_msg_id"] = uuid(account.ordinal, *path)
    made |= {"text": text, "team": team}
    if bot:
        icons = {f"image_{size}": f"https://avatars.slack-edge.com/bot_{size}.png" for size in (36, 48, 72)}
        made["bot_profile"] = {
            "id": BOT,
            "app_id": APP,
            "user_id": who,
            "name": "Deploy",
            "icons": icons,
            "deleted": False,
            "updated": 1_772_031_587,
            "team_id": team,
        }
    if item.revision:
        made["edited"] = {"user": who, "ts": ts(item.updated)}
    block = written(shuffled(item.number, 30), 5)
    section = {"type": "rich_text_section", "elements": [{"type": "text", "text": text}]}
    made["blocks"] = [{"type": "rich_text", "block_id": block, "elements": [section]}]
    return made
