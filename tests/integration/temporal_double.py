"""A Temporal client that notes what it is asked to start, and can be away."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from temporalio.service import RPCError, RPCStatusCode


@dataclass
class TemporalDouble:
    away: bool = False
    started: list[str] = field(default_factory=list)
    namespace: str = "default"

    async def start_workflow(self, _run: Any, _request: Any, *, id: str, **_options: Any) -> Any:  # noqa: A002 - the client's
        self._answer()
        self.started.append(id)
        return SimpleNamespace(first_execution_run_id=f"run-{len(self.started)}", result_run_id=None)

    def get_workflow_handle(self, workflow_id: str, **_options: Any) -> Any:
        async def describe(**_more: Any) -> Any:
            self._answer()
            if workflow_id not in self.started:
                raise RPCError("workflow not found", RPCStatusCode.NOT_FOUND, b"")
            return SimpleNamespace(status=None)

        return SimpleNamespace(describe=describe)

    def _answer(self) -> None:
        if self.away:
            raise RPCError("no connection", RPCStatusCode.UNAVAILABLE, b"")
