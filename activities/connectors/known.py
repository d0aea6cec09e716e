"""The third-party APIs that can be synced. One more is one module and one line here."""

from collections.abc import Mapping
from types import MappingProxyType

from activities.connectors.figma import FIGMA
from activities.connectors.github import GITHUB
from activities.connectors.jira import JIRA
from activities.connectors.slack import SLACK
from activities.connectors.spec import Connector

ALL = (GITHUB, JIRA, FIGMA, SLACK)
THEIR_OWN: Mapping[str, str] = MappingProxyType({})


class UnknownProvider(LookupError):
    """There is no connector of that name."""


def known(hosts: Mapping[str, str] = THEIR_OWN, speed: float = 1.0) -> dict[str, Connector]:
    """By name.

    Args:
        hosts: where else an API is to be found, by name: scheme and host, for tests and simulators.
        speed: divides the windows of all limits, for tests in scaled time.

    Raises:
        UnknownProvider: a host is given for an API that there is not.
    """
    found = {each.name: each.at(hosts.get(each.name, ""), speed) for each in ALL}
    for name in hosts:
        connector(found, name)
    return found


def connector(found: Mapping[str, Connector], name: str) -> Connector:
    """By name.

    Raises:
        UnknownProvider: there is none; the message names those there are.
    """
    if name not in found:
        msg = f"There is no connector for {name!r}. There are connectors for {', '.join(sorted(found))}."
        raise UnknownProvider(msg)
    return found[name]
