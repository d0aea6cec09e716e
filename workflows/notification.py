"""A notification reaches somebody once, the way they want it, when they want it; or says why it did not.

A person's wishes are read after the wait for the end of their quiet hours, not before.
"""

import asyncio
from uuid import UUID

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.notification import NotificationActivities
    from contracts.catalogue import NOTIFICATION
    from contracts.payloads.notification import (
        ClaimDeferred,
        Decide,
        Decided,
        DeferredClaimed,
        NotificationRequest,
        NotificationResult,
        Outcome,
        PlannedTarget,
        RoutePlan,
        Send,
        TargetOutcome,
        TargetResult,
    )
    from workflows.step import DEADLINE, Job


def workflow_id(tenant: str, job_id: UUID) -> str:
    """What must be said once is known by its dedupe key before this id is made."""
    return f"notification:{tenant}:{job_id}"


@workflow.defn(name=NOTIFICATION.name)
class NotificationWorkflow:
    """decide -> wait out quiet hours -> merge with what waited too -> send, route after route."""

    @workflow.init
    def __init__(self, request: NotificationRequest) -> None:
        self._ref = request.job
        self._carries = False
        self._job = Job(NOTIFICATION, request.job, deadline=request.expires_at)

    @workflow.run
    async def run(self, request: NotificationRequest) -> NotificationResult:
        """Ends with what became of every target."""
        return await self._job.run(self._notify(request))

    async def _notify(self, request: NotificationRequest) -> NotificationResult:
        try:
            decided = await self._job.step(NotificationActivities.decide, Decide(job=request.job))
        except ApplicationError as error:
            if error.type != DEADLINE:
                raise
            return NotificationResult(outcome="expired")
        if decided.expired:
            return NotificationResult(outcome="expired")
        if not decided.routes:
            return NotificationResult(
                outcome="suppressed" if decided.left_out else "undeliverable", targets=decided.left_out
            )
        claimed = DeferredClaimed()
        if decided.was_deferred:
            order = ClaimDeferred(job=request.job, routes=decided.routes)
            claimed = await self._job.step(NotificationActivities.claim_deferred, order)
            if claimed.merged_into:
                return NotificationResult(outcome="merged", merged_into=claimed.merged_into)
            self._carries = bool(claimed.merged)
        results = await self._send_all(decided) if decided.every else await self._send_first(decided)
        return NotificationResult(
            outcome=_outcome(results), targets=(*decided.left_out, *results), merged=claimed.merged
        )

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
        order = Send(
            job=self._ref, target=to.target, channel=to.channel, has_fallback=has_fallback, carries=self._carries
        )
        try:
            return await self._job.step(NotificationActivities.send, order, key=f"{to.channel.value} {to.target[-8:]}")
        except ApplicationError as error:
            if error.type != DEADLINE:
                raise
            place = error.details[0] if error.details and isinstance(error.details[0], dict) else {}
            return TargetResult(
                target=to.target,
                channel=to.channel,
                outcome=TargetOutcome.EXPIRED,
                attempts=int(place.get("attempts", 0)),
                code=DEADLINE,
            )


def _outcome(results: list[TargetResult]) -> Outcome:
    """A dead address beside one that was reached takes nothing away; a refusal or an expiry does."""
    outcomes = {result.outcome for result in results}
    if any(outcome.reached for outcome in outcomes):
        return "partly_sent" if outcomes & {TargetOutcome.FAILED, TargetOutcome.EXPIRED} else "sent"
    return "expired" if TargetOutcome.EXPIRED in outcomes else "undeliverable"
