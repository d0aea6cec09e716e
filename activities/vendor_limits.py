"""What the queues of vendors' pages are limited to."""

from activities.connectors.spec import Budget, Connector, Holder, KeptBy
from runtime.queue_limits import QueueLimit
from store.connections import Connections

UNSTATED = 50 / 60  # a second, where no limit is stated
OUTER = 1.05  # of all connections' limits together: a cap behind those of each


async def wanted(connector: Connector, connections: Connections) -> QueueLimit:
    """For a vendor with the active connections that there are.

    The whole queue has the app's limit, or else what all connections may use together; each connection, as a fairness
    key, has its own.
    """
    queued = [each for each in connector.budgets if each.kept_by is KeptBy.QUEUE]
    app = _smallest([each for each in queued if each.holder is Holder.APP])
    own = _smallest([each for each in queued if each.holder is Holder.CONNECTION])
    account = own if own is not None else _of_resources(connector)
    if app is not None:
        return QueueLimit(per_second=app, per_key=own)
    active = max(await connections.count_active(connector.name), 1)
    return QueueLimit(per_second=OUTER * (account or UNSTATED) * active, per_key=own)


def _smallest(budgets: list[Budget]) -> float | None:
    return min((each.per_second for each in budgets), default=None)


def _of_resources(connector: Connector) -> float | None:
    """What a connection may use of its resources' budgets together; None if one has none."""
    budgets = {each.name: each for resource in connector.resources for each in resource.budgets}
    if not all(resource.budgets for resource in connector.resources):
        return None
    return sum(each.per_second for each in budgets.values())
