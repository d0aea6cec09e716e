from base64 import b64decode
from typing import Any

import pytest

from simulator.vendors import Account
from tests.simulator.conftest import World


async def everything(world: World, account: Account, method: str, field: str, **params: str) -> list[dict[str, Any]]:
    """To the empty or missing cursor."""
    rows: list[dict[str, Any]] = []
    cursor = ""
    while True:
        got = await world.get(account, f"/api/{method}", params | ({"cursor": cursor} if cursor else {}))
        assert got.body["ok"], got.text
        rows += got.body[field]
        cursor = got.body.get("response_metadata", {}).get("next_cursor", "")
        if not cursor:
            return rows


async def test_channels(world: World) -> None:
    acme = world.thirds.account("slack", "acme", sizes={"channels": 9})
    rows = await everything(world, acme, "conversations.list", "channels", limit="4")
    assert [row["id"] for row in rows] == acme.ids("channels")
    assert all(row["id"].startswith("C0") and len(row["id"]) == 11 for row in rows)
    first = (await world.get(acme, "/api/conversations.list", {"limit": "4"})).body
    assert list(first) == ["ok", "channels", "response_metadata"]
    assert b64decode(first["response_metadata"]["next_cursor"]).decode() == f"team:{rows[4]['id']}"
    last = (await world.get(acme, "/api/conversations.list")).body
    assert last["response_metadata"] == {"next_cursor": ""}
    live = await everything(world, acme, "conversations.list", "channels", exclude_archived="true")
    assert [row for row in rows if row["is_archived"]] == [row for row in rows if row not in live] != []
    assert await everything(world, acme, "conversations.list", "channels", types="private_channel") == []


async def test_messages_the_newest_first_without_replies(world: World) -> None:
    acme = world.thirds.account("slack", "acme", sizes={"messages": 120})
    channel = acme.ids("channels")[1]
    rows = await everything(world, acme, "conversations.history", "messages", channel=channel, limit="50")
    assert [f"{channel}/{row['ts']}" for row in rows] == acme.ids("messages", channel)[::-1]
    page = (await world.get(acme, "/api/conversations.history", {"channel": channel, "limit": "50"})).body
    assert (page["has_more"], page["pin_count"]) == (True, 0)
    cursor = b64decode(page["response_metadata"]["next_cursor"]).decode()
    assert cursor == f"next_ts:{rows[50]['ts'].replace('.', '')}"
    last = (await world.get(acme, "/api/conversations.history", {"channel": channel, "limit": "999"})).body
    assert last["has_more"] is False
    assert "response_metadata" not in last
    kinds = {row.get("subtype", "bot" if "bot_id" in row else "user") for row in rows}
    assert kinds == {"bot", "user", "channel_join"}
    threads = [row for row in rows if "thread_ts" in row]
    assert len(threads) == 24
    assert all(row["thread_ts"] == row["ts"] and row["reply_count"] == 3 for row in threads)


async def test_oldest_and_latest_are_exclusive_unless_inclusive(world: World) -> None:
    acme = world.thirds.account("slack", "acme")
    channel = acme.ids("channels")[0]
    stamps = [each.split("/")[1] for each in acme.ids("messages", channel)]
    bounds = {"channel": channel, "oldest": stamps[10], "latest": stamps[20]}
    rows = await everything(world, acme, "conversations.history", "messages", **bounds, limit="4")
    assert [row["ts"] for row in rows] == stamps[11:20][::-1]
    rows = await everything(world, acme, "conversations.history", "messages", **bounds, inclusive="true")
    assert [row["ts"] for row in rows] == stamps[10:21][::-1]


async def test_threads_begin_with_their_message_and_go_on_with_the_oldest_reply(world: World) -> None:
    acme = world.thirds.account("slack", "acme", sizes={"replies": 7})
    channel = acme.ids("channels")[0]
    thread = acme.ids("messages", channel)[5]
    stamp = thread.split("/")[1]
    rows = await everything(world, acme, "conversations.replies", "messages", channel=channel, ts=stamp, limit="3")
    assert rows[0]["ts"] == rows[0]["thread_ts"] == stamp
    assert [f"{thread}/{row['ts']}" for row in rows[1:]] == acme.ids("replies", thread)
    assert all((row["thread_ts"], row["parent_user_id"]) == (stamp, rows[0]["user"]) for row in rows[1:])
    assert [row["ts"] for row in rows] == sorted(row["ts"] for row in rows)
    alone = acme.ids("messages", channel)[6].split("/")[1]
    assert len(await everything(world, acme, "conversations.replies", "messages", channel=channel, ts=alone)) == 1


async def test_what_happens_to_messages_and_users(world: World) -> None:
    acme = world.thirds.account("slack", "acme")
    channel = acme.ids("channels")[0]
    begin = {"channel": channel, "oldest": f"{world.now:.6f}"}
    world.now += 10
    (made,) = acme.add("messages", parent=channel)
    (reply,) = acme.add("replies", parent=made)
    rows = await everything(world, acme, "conversations.history", "messages", **begin)
    assert [f"{channel}/{row['ts']}" for row in rows] == [made]
    assert rows[0]["latest_reply"] == reply.split("/")[2]
    world.now += 10
    acme.change("messages", [made])
    rows = await everything(world, acme, "conversations.history", "messages", **begin)
    assert rows[0]["edited"]["ts"] == f"{world.now:.6f}"
    acme.delete("messages", [made])
    assert await everything(world, acme, "conversations.history", "messages", **begin) == []
    (gone,) = acme.delete("users", acme.ids("users")[3:4])
    users = await everything(world, acme, "users.list", "members", limit="5")
    assert [row["id"] for row in users] == acme.ids("users")
    assert [row["id"] for row in users if row["deleted"]] == [gone]
    assert all("real_name" in row for row in users if not row["deleted"])


@pytest.mark.parametrize(
    ("method", "params", "error"),
    [
        ("conversations.history", {"channel": "C0NOTHING00"}, "channel_not_found"),
        ("conversations.history", {}, "channel_not_found"),
        ("conversations.list", {"cursor": "broken"}, "invalid_cursor"),
    ],
)
async def test_errors_are_answered_with_200(world: World, method: str, params: dict[str, str], error: str) -> None:
    acme = world.thirds.account("slack", "acme")
    got = await world.get(acme, f"/api/{method}", params)
    assert (got.status, got.body) == (200, {"ok": False, "error": error})


async def test_tokens(world: World) -> None:
    acme = world.thirds.account("slack", "acme")
    assert (await world.get(acme, "/api/users.list", token="")).body["error"] == "not_authed"
    assert (await world.get(acme, "/api/users.list", token="wrong")).body["error"] == "invalid_auth"
    world.now += 43_200
    assert (await world.get(acme, "/api/users.list")).body["error"] == "token_expired"
    form = {
        "grant_type": "refresh_token",
        "refresh_token": acme.refresh_token,
        "client_id": acme.client_id,
        "client_secret": acme.client_secret,
    }
    got = await world.post(acme, "/api/oauth.v2.access", auth=False, data=form)
    assert (got.body["ok"], got.body["access_token"], got.body["expires_in"]) == (True, acme.access_token, 43_200)
    assert got.body["team"]["id"] == acme.options["team_id"]
    again = await world.post(acme, "/api/oauth.v2.access", auth=False, data=form)
    assert (again.status, again.body) == (200, {"ok": False, "error": "invalid_refresh_token"})
    posted = await world.post(acme, "/api/users.list", data={"limit": "2"})
    assert len(posted.body["members"]) == 2
    acme.revoke()
    assert (await world.get(acme, "/api/users.list")).body["error"] == "token_revoked"


async def test_each_method_has_its_tier_in_each_workspace(world: World) -> None:
    acme, other = world.thirds.account("slack", "acme"), world.thirds.account("slack", "other")
    for n in range(20):
        assert (await world.get(acme, "/api/users.list", {"limit": "1"})).status == 200, n
    refused = await world.get(acme, "/api/users.list")
    assert (refused.status, refused.body) == (429, {"ok": False, "error": "ratelimited"})
    assert refused.headers["Retry-After"] == "60"
    assert (await world.get(acme, "/api/conversations.list")).status == 200
    assert (await world.get(other, "/api/users.list")).status == 200
    world.now += 60
    assert (await world.get(acme, "/api/users.list")).status == 200


async def test_apps_outside_the_marketplace_have_fifteen_messages_a_minute(world: World) -> None:
    acme = world.thirds.account("slack", "acme", small_history=True)
    channel = acme.ids("channels")[0]
    got = await world.get(acme, "/api/conversations.history", {"channel": channel, "limit": "200"})
    assert len(got.body["messages"]) == 15
    assert got.body["has_more"]
    assert (await world.get(acme, "/api/conversations.history", {"channel": channel})).status == 429
    assert (await world.get(acme, "/api/conversations.list")).status == 200
