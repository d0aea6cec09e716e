"""The floor: our FCM channel in a bare loop. No store, no Temporal, no retries.

Started by the runner: a line of JSON on standard input says what to do, `ready` goes out, any further line releases.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import uvloop

from activities.adapters.channels.channel import Channel, Content, Message, Target
from activities.adapters.channels.configured import channels
from bench.broadcast import load
from contracts.payloads.notification import ChannelName
from runtime import collector
from runtime.settings import Settings


def prepared(numbers: range) -> list[tuple[Target, Message]]:
    now = datetime.now(UTC)
    content = Content(subject=load.SUBJECT, text=load.TEXT)
    expires_at = now + timedelta(seconds=load.TTL_SECONDS)
    return [
        (
            Target(ChannelName.FCM, load.token(number), registered_at=now),
            Message(
                effect_id=str(uuid4()),
                notification_id=str(uuid4()),
                tenant="acme",
                category="news",
                urgent=False,
                created_at=now,
                expires_at=expires_at,
                content=content,
            ),
        )
        for number in numbers
    ]


async def lane(channel: Channel, work: Iterator[tuple[Target, Message]], codes: Counter[str]) -> None:
    for target, message in work:
        outcome = await channel.send(target, message, now=datetime.now(UTC))
        codes[outcome.code] += 1


async def main() -> None:
    order = json.loads(sys.stdin.readline())
    settings = Settings(fcm_credentials_file=Path(order["credentials"]), fcm_api_url=order["url"])
    channel = channels(settings)[ChannelName.FCM]
    work = prepared(range(order["first"], order["last"]))
    collector.started()
    print("ready", flush=True)
    if not sys.stdin.readline():
        return  # the runner is gone
    codes: Counter[str] = Counter()
    shared = iter(work)
    await asyncio.gather(*(lane(channel, shared, codes) for _ in range(order["concurrency"])))
    print(json.dumps(codes), flush=True)
    sys.stdin.readline()  # until its CPU time has been read
    await channel.close()


if __name__ == "__main__":
    uvloop.run(main())
