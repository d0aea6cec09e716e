"""Everything that was received, and what each device shows of it."""

import json
import time
from collections import Counter, defaultdict, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

IN_MEMORY = 200_000  # records; all of them are in the file


@dataclass(frozen=True)
class Record:
    """One request or mail. `effect` is the sender's own id of it, where the channel has one."""

    number: int
    at: float
    channel: str
    target: str
    accepted: bool
    effect: str
    fault: str | None
    body: Any


@dataclass
class Shown:
    """A notification on a device's screen, a mail, a message. `deliveries` counts how often it came."""

    key: str
    title: str
    deliveries: int = 1


@dataclass
class Device:
    """What one address shows, by what the vendor replaces by; and what waits for it while it is offline."""

    online: bool = True
    shown: dict[str, Shown] = field(default_factory=dict)
    waiting: dict[str, tuple[str, str]] = field(default_factory=dict)
    raw: int = 0

    def deliver(self, key: str, title: str) -> None:
        """Show it, in the place of what has the same key."""
        self.raw += 1
        if key in self.shown:
            self.shown[key].title = title
            self.shown[key].deliveries += 1
        else:
            self.shown[key] = Shown(key, title)


class Records:
    """Append-only, also in `folder/records.ndjson`."""

    def __init__(self, folder: Path | None) -> None:
        self._kept: deque[Record] = deque(maxlen=IN_MEMORY)
        self._file = (folder / "records.ndjson").open("a", buffering=1) if folder else None
        self._devices: dict[tuple[str, str], Device] = defaultdict(Device)
        self._number = 0

    def add(
        self, channel: str, target: str, *, accepted: bool, effect: str, body: Any, fault: str | None = None
    ) -> None:
        """Note one."""
        self._number += 1
        record = Record(self._number, time.time(), channel, target, accepted, effect, fault, body)
        self._kept.append(record)
        if self._file is not None:
            self._file.write(json.dumps(asdict(record), default=str) + "\n")

    def of(self, channel: str | None = None, *, after: int = 0) -> list[Record]:
        """Records in order, those after a number."""
        return [each for each in self._kept if each.number > after and (channel is None or each.channel == channel)]

    def accepted(self, channel: str) -> list[Record]:
        """What the vendor took."""
        return [each for each in self.of(channel) if each.accepted]

    def device(self, channel: str, target: str) -> Device:
        """The device behind an address."""
        return self._devices[channel, target]

    def show(self, channel: str, target: str, key: str, title: str, *, pending_key: str | None = None) -> None:
        """Deliver to a device, or keep it while the device is offline; the same `pending_key` replaces what waits."""
        device = self.device(channel, target)
        if device.online:
            device.deliver(key, title)
        else:
            device.waiting[pending_key or f"{key}:{len(device.waiting)}"] = (key, title)

    def set_online(self, channel: str, target: str, *, online: bool) -> None:
        """Connect or disconnect a device; what waited arrives."""
        device = self.device(channel, target)
        device.online = online
        if online:
            waiting, device.waiting = device.waiting, {}
            for key, title in waiting.values():
                device.deliver(key, title)

    def summary(self) -> dict[str, dict[str, int]]:
        """Per channel: requests, accepted, distinct effects, repeats of an effect, and shown more than once."""
        totals: dict[str, dict[str, int]] = {}
        for channel in sorted({each.channel for each in self._kept}):
            taken = Counter((each.target, each.effect) for each in self.accepted(channel))
            devices = [device for (name, _), device in self._devices.items() if name == channel]
            totals[channel] = {
                "requests": len(self.of(channel)),
                "accepted": sum(taken.values()),
                "distinct": len(taken),
                "repeated": sum(count - 1 for count in taken.values()),
                "shown": sum(len(device.shown) for device in devices),
            }
        return totals

    def clear(self) -> None:
        """Forget what is in memory."""
        self._kept.clear()
        self._devices.clear()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
