"""Submitting a file: bytes to the blob store, rows to the store, then the workflow."""

from dataclasses import dataclass, replace

from contracts.catalogue import FILE
from contracts.payloads.file import PIPELINE_VERSION, FileRequest
from contracts.payloads.job import JobRef, JobState
from starter.api.upload import Upload
from starter.services import Services
from starter.start_job import start_job
from store.ids import new_id
from store.jobs import Job, NewJob
from store.submissions import check
from workflows.file import FileWorkflow, workflow_id


@dataclass(frozen=True, slots=True)
class SubmittedFile:
    """`deduplicated`: the tenant's same bytes were submitted before, so their job is this file's job.

    `first_run_id` is that of a workflow started by this call, for `Jobs.started`: it can be noted after the answer, as
    a submission that is repeated meanwhile starts nothing new.
    """

    job: Job
    file_id: str
    deduplicated: bool
    first_run_id: str | None = None


async def submit_file(
    services: Services, tenant: str, upload: Upload, *, idempotency_key: str | None, trace_id: str | None
) -> SubmittedFile:
    """Store and start. Nothing that was stored is lost when a later part fails: submitting again goes on from there.

    Raises:
        IdempotencyConflict: the key was used for another file.
        RPCError: Temporal does not answer; the file is stored and its job is `submitted`.
        Problem: the upload's own, such as 413.
    """
    arriving = f"uploads/{tenant}/{new_id()}"
    await services.blobs.put_stream(arriving, aiter(upload))
    try:
        submitted, content_id = await _store(services, tenant, upload, arriving, idempotency_key, trace_id)
    finally:
        await services.blobs.delete(arriving)
    if submitted.job.state is JobState.SUBMITTED:
        first_run_id = await start_job(
            services,
            FILE,
            submitted.job,
            FileWorkflow.run,
            FileRequest(job=JobRef(job_id=submitted.job.job_id, tenant=tenant), content_id=content_id),
            summary=f"file of {upload.size_bytes:,} bytes",
        )
        running = replace(submitted.job, state=JobState.RUNNING, first_run_id=first_run_id)
        return replace(submitted, job=running, first_run_id=first_run_id)
    return submitted


async def _store(
    services: Services, tenant: str, upload: Upload, arriving: str, idempotency_key: str | None, trace_id: str | None
) -> tuple[SubmittedFile, str]:
    body_hash = f"{upload.sha256}:{upload.filename}"
    blob_key = f"files/{tenant}/{upload.sha256}/original"
    if await services.files.find_content(tenant, upload.sha256, PIPELINE_VERSION) is None:
        await services.blobs.move(arriving, blob_key)
    async with services.database.write() as connection:
        if idempotency_key:
            before = await services.submissions.find(connection, tenant, idempotency_key)
            if before:
                check(before, body_hash)
                repeated = await services.files.get(tenant, before.resource_id or "", connection)
                job = await services.jobs.get(tenant, before.job_id, connection)
                if repeated and job:
                    file, content = repeated
                    return SubmittedFile(job, file.file_id, deduplicated=True), content.content_id
        job, created = await services.jobs.submit(
            connection,
            NewJob(
                job_id=new_id(),
                tenant=tenant,
                type=FILE.name,
                workflow_id=workflow_id(tenant, upload.sha256, PIPELINE_VERSION),
                trace_id=trace_id,
            ),
        )
        file, content = await services.files.receive(
            connection,
            tenant=tenant,
            person=None,
            filename=upload.filename,
            size_bytes=upload.size_bytes,
            sha256=upload.sha256,
            blob_key=blob_key,
            pipeline_version=PIPELINE_VERSION,
            job_id=job.job_id,
            file_id=str(new_id()),
            content_id=str(new_id()),
        )
        if idempotency_key:
            await services.submissions.add(connection, tenant, idempotency_key, body_hash, job.job_id, file.file_id)
    return SubmittedFile(job, file.file_id, deduplicated=not created), content.content_id
