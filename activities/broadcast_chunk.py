"""Who of a chunk's recipients is reached how, by what is in the store now: four reads, whatever their number."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from activities.adapters.channels.channel import Content, Message
from activities.bulk_delivery import Parcel
from activities.notification import effect_id, render
from activities.reach import quiet_until, why_left_out
from activities.templates import Templates
from activities.unsubscribe import Unsubscribing
from contracts.payloads.broadcast import UNDELIVERABLE
from contracts.payloads.notification import ChannelName, Route, TargetOutcome
from store.broadcasts import Broadcast
from store.effects import EffectKey
from store.notifications import Notification
from store.people import People, Person, Preference, StoredTarget
from store.recipients import Recipient
from store.suppressions import Suppression, Suppressions

JOBS = uuid.UUID("0d6fd0d2-5a1e-5c57-8f0a-6f6a0f3c2b90")  # namespace of the ids of recipients' jobs
LINE_BITS = 32


@dataclass(slots=True)
class Chunk:
    """What is to be sent. `counts` are recipients who are not reached at all, `quiet` lines of those who sleep now."""

    parcels: list[Parcel] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    quiet: set[int] = field(default_factory=set)

    def by_line(self) -> dict[int, list[EffectKey]]:
        """The effects of each recipient."""
        found: dict[int, list[EffectKey]] = {}
        for each in self.parcels:
            found.setdefault(each.line, []).append(each.key)
        return found


@dataclass(slots=True)
class _Known:
    """What the store says of a chunk's recipients."""

    people: dict[str, Person]
    wishes: dict[str, list[Preference]]
    by_id: dict[str, StoredTarget] = field(default_factory=dict)
    by_person: dict[str, list[StoredTarget]] = field(default_factory=dict)
    suppressed: dict[str, list[Suppression]] = field(default_factory=dict)

    def of(self, recipient: Recipient) -> tuple[list[StoredTarget], Person | None]:
        """Where the recipient can be reached, and who it is if that is known: a person's own address is no loophole."""
        if recipient.person is not None:
            return self.by_person.get(recipient.person, []), self.people.get(recipient.person)
        target = self.by_id.get(recipient.target_id or "")
        return ([target] if target else []), (self.people.get(target.person or "") if target else None)


class ChunkPlanner:
    """Reads the store; sends nothing."""

    def __init__(
        self,
        *,
        people: People,
        suppressions: Suppressions,
        templates: Templates,
        unsubscribing: Unsubscribing,
        configured: frozenset[ChannelName],
    ) -> None:
        self._people = people
        self._suppressions = suppressions
        self._templates = templates
        self._unsubscribing = unsubscribing
        self._configured = configured

    async def plan(self, mine: Broadcast, recipients: list[Recipient], now: datetime) -> Chunk:
        """The parcels of these recipients, and those who get none."""
        known = await self._known(mine, recipients)
        contents: dict[str | None, Content] = {}
        chunk = Chunk()
        for recipient in recipients:
            reachable, person = known.of(recipient)
            if person is not None and not mine.urgent and quiet_until(person, now) is not None:
                chunk.quiet.add(recipient.line)
                continue
            usable, left_out = [], []
            for target in reachable:
                why = why_left_out(
                    target,
                    category=mine.category,
                    mandatory=mine.mandatory,
                    wishes=known.wishes.get(person.person, []) if person else [],
                    suppressed=known.suppressed.get(target.target_id, []),
                    configured=self._configured,
                    now=now,
                )
                if why is None:
                    usable.append(target)
                else:
                    left_out.append(why[0])
            chosen = _chosen(mine, usable) if recipient.person is not None else usable
            if not chosen:
                chunk.counts[best(left_out).value if left_out else UNDELIVERABLE] += 1
                continue
            notification_id = str(job_id_of(mine, recipient))
            chunk.parcels += [
                Parcel(
                    line=recipient.line,
                    key=EffectKey(notification_id, each.target_id),
                    target=each,
                    message=self._maker(mine, recipient, notification_id, each, person, contents),
                    resend=mine.resend,
                )
                for each in chosen
            ]
        return chunk

    async def _known(self, mine: Broadcast, recipients: list[Recipient]) -> _Known:
        named = {each.person for each in recipients if each.person is not None}
        direct = {each.target_id for each in recipients if each.target_id is not None}
        found = await self._people.targets_among(mine.tenant, persons=named, target_ids=direct)
        wanted = frozenset[ChannelName]().union(*(route.channels for route in mine.routes))
        targets = [each for each in found if each.channel in wanted]  # an audience has addresses of any channel
        owners = named | {each.person for each in targets if each.person is not None}
        known = _Known(
            people=await self._people.among(mine.tenant, owners) if owners else {},
            wishes=await self._people.preferences_among(mine.tenant, owners) if owners and not mine.mandatory else {},
        )
        ids: dict[tuple[ChannelName, str], list[str]] = {}
        for target in targets:
            ids.setdefault((target.channel, target.address), []).append(target.target_id)
            known.by_id[target.target_id] = target
            if target.person is not None:
                known.by_person.setdefault(target.person, []).append(target)
        for each in await self._suppressions.of(targets):
            for target_id in ids[each.channel, each.address]:
                known.suppressed.setdefault(target_id, []).append(each)
        return known

    def _maker(
        self,
        mine: Broadcast,
        recipient: Recipient,
        notification_id: str,
        target: StoredTarget,
        person: Person | None,
        contents: dict[str | None, Content],
    ) -> Callable[[], Message]:
        def make() -> Message:
            unsubscribe = None
            if target.channel is ChannelName.EMAIL and not mine.mandatory:
                unsubscribe = self._unsubscribing.url(mine.tenant, target.target_id, mine.category)
            locale = person.locale if person else None
            alike = not recipient.data and unsubscribe is None
            content = contents.get(locale) if alike else None
            if content is None:
                content = render(self._templates, notification_of(mine, recipient, target), locale, unsubscribe)
                if alike:
                    contents[locale] = content
            return Message(
                effect_id=effect_id(notification_id, target.target_id),
                notification_id=notification_id,
                tenant=mine.tenant,
                category=mine.category,
                urgent=mine.urgent,
                created_at=mine.created_at,
                expires_at=mine.expires_at,
                content=content,
                unsubscribe_url=unsubscribe,
            )

        return make


def job_id_of(mine: Broadcast, recipient: Recipient) -> uuid.UUID:
    """The id of the job that the recipient's message becomes if it is handed over; devices replace by it.

    Those of one broadcast differ in their last four bytes, which are the line: what a chunk writes lies side by side in
    every index.
    """
    first = uuid.uuid5(JOBS, str(mine.broadcast_id)).int >> LINE_BITS << LINE_BITS
    return uuid.UUID(int=first + recipient.line)


def notification_of(mine: Broadcast, recipient: Recipient, target: StoredTarget | None) -> Notification:
    """The recipient's message as one of its own. `target` is what an address that was named is stored as."""
    named = target if recipient.target_id is not None else None
    return Notification(
        notification_id=job_id_of(mine, recipient),
        tenant=mine.tenant,
        category=mine.category,
        routes=(Route(named.channel.value),) if named else mine.routes,
        created_at=mine.created_at,
        expires_at=mine.expires_at,
        person=named.person if named else recipient.person,
        target_id=recipient.target_id,
        urgent=mine.urgent,
        mandatory=mine.mandatory,
        every=mine.every,
        resend=mine.resend,
        template=mine.template,
        content=mine.content,
        data={**mine.data, **(recipient.data or {})},
    )


def best(outcomes: Iterable[TargetOutcome]) -> TargetOutcome:
    """What counts for the recipient: who was reached at all was reached."""
    order = list(TargetOutcome)
    return min(outcomes, key=order.index)


def _chosen(mine: Broadcast, usable: list[StoredTarget]) -> list[StoredTarget]:
    """The targets of the first route that has any, or of all."""
    chosen: list[StoredTarget] = []
    for route in mine.routes:
        chosen += [each for each in usable if each.channel in route.channels and each not in chosen]
        if chosen and not mine.every:
            break
    return chosen
