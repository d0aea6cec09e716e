"""A job type whose one step does what a script says, to see what workflows/step.py makes of it."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta

from pydantic import JsonValue
from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    from activities.heartbeat import heartbeat
    from contracts.catalogue import JobType, Keep, Step, WhenExhausted, exponential
    from contracts.errors import FailureKind, failure
    from contracts.payloads.job import Interrupted, JobRecorded, JobRef, JobRequest, RecordJob, WaitUntil
    from contracts.payloads.model import Fact, StepOrder
    from workflows.step import Job

PROBE = JobType(
    "probe",
    queue="probe",
    retry=exponential(3, first_seconds=10),
    keep=Keep(completed_newest=1, failed=timedelta(days=14)),
    when_exhausted=WhenExhausted.PARK,
    steps=(
        Step("act", timedelta(seconds=5), timedelta(days=2)),
        Step("beat", timedelta(minutes=1), timedelta(days=2), heartbeat=timedelta(seconds=1)),
    ),
)
UNPARKED = JobType("unparked", PROBE.queue, PROBE.retry, PROBE.keep, WhenExhausted.FAIL, PROBE.steps, PROBE.priority)


class Act(StepOrder):
    """`script` is played one entry per execution; the last entry repeats."""

    job: JobRef
    script: tuple[str, ...]
    until: datetime | None = None
    name: str = "only"


class Acted(Fact):
    executions: int
    resumed_at: JsonValue
    script: tuple[str, ...]


class ProbeRequest(JobRequest):
    script: tuple[str, ...]
    until: datetime | None = None
    deadline: datetime | None = None
    step: str = "act"
    parallel: int = 1
    slots: int = 0
    parks: bool = True


class ProbeActivities:
    """Remembers what was asked of it."""

    def __init__(self) -> None:
        self.executions: dict[tuple[str, str], list[Act]] = defaultdict(list)
        self.attempts: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.records: list[RecordJob] = []
        self.at_once = 0
        self.most_at_once = 0

    @activity.defn(name="job.record")
    async def record(self, order: RecordJob) -> JobRecorded:
        self.records.append(order)
        return JobRecorded(changed=True)

    @activity.defn(name="probe.act")
    async def act(self, order: Act) -> Acted | WaitUntil | Interrupted:
        return await self._play(order)

    @activity.defn(name="probe.beat")
    async def beat(self, order: Act) -> Acted | WaitUntil | Interrupted:
        return await self._play(order)

    async def _play(self, order: Act) -> Acted | WaitUntil | Interrupted:
        key = (str(order.job.job_id), order.name)
        self.executions[key].append(order)
        self.attempts[key].append(activity.info().attempt)
        number = len(self.executions[key])
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._do(order.script[min(number, len(order.script)) - 1], number, order)
        finally:
            self.at_once -= 1

    async def _do(self, what: str, number: int, order: Act) -> Acted | WaitUntil | Interrupted:
        if what == "wait" and order.until and number == 1:
            return WaitUntil(until=order.until, waiting_for="jira")
        if what == "interrupted":
            return Interrupted(place={"page": number})
        if what == "error":
            raise RuntimeError("vendor is down")
        if what == "transient":
            raise failure(FailureKind.TRANSIENT, "vendor_down", "the vendor is down")
        if what == "rejected":
            raise failure(FailureKind.REJECTED, "no_such_thing", "the vendor does not know it")
        if what == "invalid":
            raise failure(FailureKind.INVALID_INPUT, "bad_file", "send another file")
        if what == "lost":
            heartbeat({"page": number})
            await asyncio.sleep(60)
        if what == "slow":
            await asyncio.sleep(0.2)
        if what == "hang":
            for _ in range(600):
                heartbeat()
                await asyncio.sleep(0.2)
        return Acted(executions=number, resumed_at=order.resume, script=order.script)


@workflow.defn(name="probe")
class ProbeWorkflow:
    @workflow.init
    def __init__(self, request: ProbeRequest) -> None:
        self._job = Job(PROBE if request.parks else UNPARKED, request.job, deadline=request.deadline)

    @workflow.run
    async def run(self, request: ProbeRequest) -> Acted:
        return await self._job.run(self._story(request))

    async def _story(self, request: ProbeRequest) -> Acted:
        step: Callable[..., object] = getattr(ProbeActivities, request.step)
        slots = asyncio.Semaphore(request.slots) if request.slots else None
        orders = [
            Act(
                job=request.job,
                script=request.script if number == 0 or request.slots else ("ok",),
                until=request.until,
                name=f"n{number}",
            )
            for number in range(request.parallel)
        ]
        if request.parallel > 1 and not request.slots:
            orders[1] = orders[1].model_copy(update={"script": request.script})
        acted: list[Acted] = await asyncio.gather(
            *(self._job.step(step, order, key=order.name, slots=slots) for order in orders)  # type: ignore[arg-type]
        )
        return acted[0]
