"""How every command of the command line runs: logs, known errors in one line, exit code."""

import os
import sys
from collections.abc import Coroutine
from typing import Any

import uvloop
from rich.console import Console
from rich.text import Text
from temporalio.service import RPCError

from activities.connectors.known import UnknownProvider
from activities.templates import TemplateBroken, TemplateDataError, UnknownTemplate
from runtime import telemetry
from runtime.ports import PortInUse
from runtime.profile import ProfileError
from runtime.server import ServerError
from runtime.settings import Settings
from runtime.temporal import TemporalUnreachable
from starter.connection_request import InvalidConnection
from starter.connections import AlreadyConnected, NeedsCredentials
from starter.start_sync import ConnectionFrozen
from starter.submit_notification import InvalidNotification
from starter.supervisor import NotReady
from store.database import DatabaseUnavailable, NeedsMigration
from store.submissions import IdempotencyConflict

out = Console(markup=False)  # what is printed comes from people: `[/x]` in it is no markup
problems = Console(stderr=True, markup=False, highlight=False)

EXPECTED = (
    ServerError,
    ProfileError,
    PortInUse,
    TemporalUnreachable,
    DatabaseUnavailable,
    NeedsMigration,
    NotReady,
    UnknownTemplate,
    TemplateDataError,
    TemplateBroken,
    InvalidNotification,
    IdempotencyConflict,
    UnknownProvider,
    InvalidConnection,
    AlreadyConnected,
    NeedsCredentials,
    ConnectionFrozen,
)


def complain(text: str) -> None:
    """One error on standard error."""
    problems.print(Text.assemble(("holdfast: ", "red"), text))


def run_command(work: Coroutine[Any, Any, int | None], settings: Settings) -> None:
    """Run to the end and leave the process."""
    telemetry.configure_logging(settings)
    try:
        code = uvloop.run(work) or 0
    except EXPECTED as error:
        complain(str(error))
        code = 1
    except RPCError as error:
        complain(f"Temporal does not answer, or refuses ({error.status.name}): {error}")
        code = 1
    except KeyboardInterrupt:
        code = 130
    telemetry.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the interpreter can abort at exit: https://github.com/temporalio/sdk-python/issues/300
