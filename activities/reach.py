"""Whether a target may be used for a message: the channel exists, the person wants it, nothing suppresses it."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from datetime import datetime

from activities.quiet_hours import QuietHours, ends_at
from contracts.payloads.notification import ChannelName, TargetOutcome
from store.people import Person, Preference, StoredTarget, allowed
from store.suppressions import Reason, Suppression

NOT_CONFIGURED = "channel_not_configured"


def why_left_out(
    target: StoredTarget,
    *,
    category: str,
    mandatory: bool,
    wishes: Iterable[Preference],
    suppressed: Iterable[Suppression],
    configured: AbstractSet[ChannelName],
    now: datetime,
) -> tuple[TargetOutcome, str] | None:
    """Why `target` is not used, as outcome and code, or None.

    Nobody can mute or unsubscribe from what is mandatory; an address that is dead is dead for it too. `suppressed` may
    hold other targets' suppressions.
    """
    if target.channel not in configured:
        return TargetOutcome.SUPPRESSED, NOT_CONFIGURED
    if not mandatory and not allowed(wishes, category, target.channel.value):
        return TargetOutcome.MUTED, "preference"
    for each in suppressed:
        if (each.channel, each.address) != (target.channel, target.address):
            continue
        excused = mandatory and each.reason is Reason.UNSUBSCRIBED
        if not excused and each.applies(target, category, now):
            return TargetOutcome.SUPPRESSED, each.reason.value
    return None


def quiet_until(person: Person, now: datetime) -> datetime | None:
    """The end of the quiet hours that hold for the person at `now`, or None."""
    if not (person.quiet_start and person.quiet_end and person.zone):
        return None
    return ends_at(QuietHours.parse(person.quiet_start, person.quiet_end, person.zone), now)
