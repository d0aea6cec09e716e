"""Audiences: sets of recipients with a name, saved as a whole and replaced as a whole."""

from sqlalchemy.ext.asyncio import AsyncConnection

from starter.body_lines import BodyLines
from starter.recipient_intake import Report, drop_soon, keep, take_in
from starter.services import Services
from store.database import advisory_lock


async def audience_lock(connection: AsyncConnection, tenant: str, name: str) -> None:
    """While a transaction has it, the set that the name has now is not judged unused."""
    await advisory_lock(connection, f"holdfast:audience:{tenant}:{name}")


async def save_audience(
    services: Services, tenant: str, name: str, lines: BodyLines, *, strict: bool = False
) -> Report:
    """Give the recipients of these lines the name. The set that had it goes unless a broadcast reads it.

    Raises:
        RecipientsRefused: no line is good, or one is bad and this is `strict`; the audience stays as it was.
        TooManyRecipients: more lines than HOLDFAST_MAX_RECIPIENTS.
    """
    async with take_in(services, tenant, lines, strict=strict) as taken:
        async with services.database.write() as connection:
            await keep(services, connection, taken)
        before = await services.recipients.save_audience(tenant, name, taken.set_id)
    await _drop_unused(services, tenant, name, before)
    return taken.report


async def remove_audience(services: Services, tenant: str, name: str) -> bool:
    """Forget the name; false if there was none. Broadcasts that read its set go on."""
    before = await services.recipients.remove_audience(tenant, name)
    await _drop_unused(services, tenant, name, before)
    return before is not None


async def _drop_unused(services: Services, tenant: str, name: str, set_id: str | None) -> None:
    if set_id is None:
        return
    async with services.database.write() as connection:
        await audience_lock(connection, tenant, name)  # who read the name before it was given away has ended
    if not await services.recipients.used(set_id):
        drop_soon(services, set_id)
