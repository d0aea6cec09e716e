"""A notification reaches somebody once, the way they want it, when they want it; or says why it did not.

A person's wishes are read after the wait for the end of their quiet hours, not before.
"""

import asyncio
from typing import NoReturn
from uuid import UUID

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from pydantic import JsonValue

    from activities.notification import NotificationActivities
    from contracts.catalogue import NOTIFICATION
    from contracts.payloads.notification import (
        ClaimDeferred,
        Decide,
        Decided,
        NotificationRequest,
        NotificationResult,
        Outcome,
        PlannedTarget,
        RoutePlan,
        Send,
        SoFar,
        TargetOutcome,
        TargetResult,
    )
    from workflows.step import DEADLINE, Job


@workflow.defn(name=NOTIFICATION.name)
class NotificationWorkflow:
    """decide -> wait out quiet hours -> merge with what waited too -> send, route after route."""

    @workflow.init
    def __init__(self, request: NotificationRequest) -> None:
        self._request = request
        so_far = request.so_far
        self._decided = so_far.decided if so_far else None
        self._merged: tuple[UUID, ...] = so_far.merged if so_far else ()
        self._done = {each.target: each for each in (so_far.done if so_far else ())}
        self._failure = _failure(so_far)
        self._job = Job(
            NOTIFICATION,
            request.job,
            deadline=request.expires_at,
            started_at=so_far.started_at if so_far else None,
            places=so_far.places if so_far else None,
            continue_at=self._continue_at,
        )

    @workflow.run
    async def run(self, request: NotificationRequest) -> NotificationResult:  # noqa: ARG002 - __init__ has it
        """Ends with what became of every target."""
        return await self._job.run(self._notify())

    def _continue_at(self, places: dict[str, JsonValue]) -> NoReturn:
        so_far = SoFar(
            started_at=self._job.started_at,
            decided=self._decided,
            merged=self._merged,
            places=places,
            done=tuple(self._done.values()),
            failure=(self._failure.type or "", self._failure.message) if self._failure else None,
        )
        workflow.continue_as_new(self._request.model_copy(update={"so_far": so_far}))

    async def _notify(self) -> NotificationResult:
        if self._decided is None:
            ended = await self._decide()
            if ended is not None:
                return ended
        decided = self._decided
        assert decided is not None
        results = await self._send_all(decided) if decided.every else await self._send_first(decided)
        result = NotificationResult(
            outcome=_outcome(results), targets=(*decided.left_out, *results), merged=self._merged
        )
        if self._failure is not None and not any(each.outcome.reached for each in results):
            self._job.so_far = result
            raise self._failure
        return result

    async def _decide(self) -> NotificationResult | None:
        """Know who is to be reached how, and what is carried; the result, where nothing is to be sent."""
        try:
            while True:
                decided = await self._job.step(NotificationActivities.decide, Decide(job=self._request.job))
                if decided.expired or not (decided.carried or (decided.routes and decided.was_deferred)):
                    break
                order = ClaimDeferred(job=self._request.job, routes=decided.routes)
                claimed = await self._job.step(NotificationActivities.claim_deferred, order)
                if claimed.merged_into:
                    return NotificationResult(outcome="merged", merged_into=claimed.merged_into)
                self._merged = claimed.merged
                if not claimed.again:
                    break
        except ApplicationError as error:
            if error.type != DEADLINE:
                raise
            return NotificationResult(outcome="expired")
        if decided.expired:
            return NotificationResult(outcome="expired")
        if not decided.routes:
            outcome: Outcome = "suppressed" if decided.left_out else "undeliverable"
            return NotificationResult(outcome=outcome, targets=decided.left_out)
        self._decided = decided
        return None

    async def _send_all(self, decided: Decided) -> list[TargetResult]:
        sent = await asyncio.gather(*(self._send_route(plan, has_fallback=False) for plan in decided.routes))
        return [result for results in sent for result in results]

    async def _send_first(self, decided: Decided) -> list[TargetResult]:
        """Route after route, until one reaches somebody."""
        results: list[TargetResult] = []
        for place, plan in enumerate(decided.routes, 1):
            results += await self._send_route(plan, has_fallback=place < len(decided.routes))
            if any(result.outcome.reached for result in results):
                break
        return results

    async def _send_route(self, plan: RoutePlan, *, has_fallback: bool) -> list[TargetResult]:
        return await asyncio.gather(*(self._send(target, has_fallback=has_fallback) for target in plan.targets))

    async def _send(self, to: PlannedTarget, *, has_fallback: bool) -> TargetResult:
        """What became of one target: one that fails for good takes nothing from the others."""
        if to.target not in self._done:
            self._done[to.target] = await self._try(to, has_fallback=has_fallback)
        return self._done[to.target]

    async def _try(self, to: PlannedTarget, *, has_fallback: bool) -> TargetResult:
        order = Send(job=self._request.job, target=to.target, channel=to.channel, has_fallback=has_fallback)
        key = f"{to.channel.value} {to.target[-8:]}"
        try:
            return await self._job.step(NotificationActivities.send, order, key=key, parks=not has_fallback)
        except ApplicationError as error:
            if error.type != DEADLINE:
                self._failure = self._failure or error
                return TargetResult(target=to.target, channel=to.channel, outcome=TargetOutcome.FAILED, code=error.type)
            place = error.details[0] if error.details and isinstance(error.details[0], dict) else {}
            lost = int(place.get("unknown", 0))
            return TargetResult(
                target=to.target,
                channel=to.channel,
                outcome=TargetOutcome.MAYBE_SENT if lost else TargetOutcome.EXPIRED,
                attempts=int(place.get("attempts", 0)),
                code="reply_lost" if lost else DEADLINE,
            )


def _failure(so_far: SoFar | None) -> ApplicationError | None:
    if so_far is None or so_far.failure is None:
        return None
    return ApplicationError(so_far.failure[1], type=so_far.failure[0], non_retryable=True)


def _outcome(results: list[TargetResult]) -> Outcome:
    """A dead address beside one that was reached takes nothing away; a refusal or an expiry does."""
    outcomes = {result.outcome for result in results}
    if any(outcome.reached for outcome in outcomes):
        return "partly_sent" if outcomes & {TargetOutcome.FAILED, TargetOutcome.EXPIRED} else "sent"
    return "expired" if TargetOutcome.EXPIRED in outcomes else "undeliverable"
