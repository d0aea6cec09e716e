"""/v1/files: upload, look, read, search."""

from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Header, Query, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from opentelemetry import trace
from structlog.contextvars import bind_contextvars

from starter.api.access import AuthenticatedCaller, Caller, Right
from starter.api.problems import Problem
from starter.api.upload import open_upload
from starter.api.views import (
    FileAccepted,
    FileView,
    HitPage,
    TextView,
    file_view,
    hit_view,
    links,
    page_view,
)
from starter.services import Services
from starter.submit_file import submit_file
from store.blobs import BlobMissing
from store.files import Content, File
from store.search import InvalidQuery
from store.submissions import IdempotencyConflict

router = APIRouter(prefix="/v1/files", tags=["files"])

UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        examples=["invoice-2026-11-0042"],
        description="Asking twice with the same key within 30 days starts once; another file under it is a 409.",
    ),
]


@router.post("", status_code=202, summary="Upload a file", openapi_extra=UPLOAD_BODY)
async def upload_file(
    request: Request,
    caller: AuthenticatedCaller,
    afterwards: BackgroundTasks,
    idempotency_key: IdempotencyKey = None,
) -> FileAccepted:
    """Stream a file in. Its job makes thumbnails and searchable text; the answer names job and file."""
    services: Services = request.app.state.services
    caller.need(Right.SUBMIT)
    tenant = caller.own_tenant()
    upload = await open_upload(request, services.settings.max_upload_bytes)
    span = trace.get_current_span().get_span_context()
    try:
        submitted = await submit_file(
            services,
            tenant,
            upload,
            idempotency_key=idempotency_key,
            trace_id=f"{span.trace_id:032x}" if span.is_valid else None,
        )
    except IdempotencyConflict as error:
        raise Problem(409, "idempotency_conflict", str(error)) from error
    if submitted.first_run_id:
        afterwards.add_task(services.jobs.started, submitted.job.job_id, submitted.first_run_id)
    bind_contextvars(job_id=str(submitted.job.job_id))
    return FileAccepted(
        job_id=submitted.job.job_id,
        file_id=submitted.file_id,
        state=submitted.job.state,
        deduplicated=submitted.deduplicated,
        links=links(services.settings, services.temporal.namespace, submitted.job),
        file=f"{services.settings.resolved_public_url()}/v1/files/{submitted.file_id}",
    )


@router.get("", summary="Search the text of files")
async def search_files(
    request: Request,
    caller: AuthenticatedCaller,
    q: Annotated[
        str,
        Query(
            min_length=1,
            max_length=500,
            examples=['"total amount" invoice -draft'],
            description='Words that must all be on a page; "quoted phrases", `prefix*`, and `-without`.',
        ),
    ],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    offset: Annotated[int, Query(ge=0, le=10_000)] = 0,
) -> HitPage:
    """Pages of the tenant's files that match, best first."""
    services: Services = request.app.state.services
    caller.need(Right.SEE_CONTENTS)
    try:
        hits = await services.search.files(caller.own_tenant(), q, limit=limit, offset=offset)
    except InvalidQuery as error:
        raise Problem(422, "invalid_query", str(error)) from error
    return HitPage(hits=[hit_view(services.settings, hit) for hit in hits])


@router.get("/{file_id}", summary="A file")
async def get_file(request: Request, caller: AuthenticatedCaller, file_id: str) -> FileView:
    """Name, type, pages and where its thumbnails and text are."""
    services: Services = request.app.state.services
    file, content = await _find(services, caller, file_id)
    return file_view(services.settings, file, content, await services.files.thumbnails(content.content_id))


@router.get(
    "/{file_id}/thumbnails/{size}",
    summary="A thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}}}},
)
async def get_thumbnail(request: Request, caller: AuthenticatedCaller, file_id: str, size: int) -> Response:
    """WebP, longest side at most `size` pixels, without the original's metadata."""
    services: Services = request.app.state.services
    _file, content = await _find(services, caller, file_id)
    thumbnail = await services.files.thumbnail(content.content_id, size)
    if thumbnail is None:
        made = [str(each.size_px) for each in await services.files.thumbnails(content.content_id)]
        detail = f"There is no thumbnail of {size} px; made are: {', '.join(made) or 'none yet'}."
        raise Problem(404, "thumbnail_not_found", detail)
    headers = {"Cache-Control": "private, max-age=86400, immutable", "ETag": f'"{content.sha256}-{size}"'}
    return Response(await services.blobs.get(thumbnail.blob_key), media_type="image/webp", headers=headers)


@router.get(
    "/{file_id}/text",
    summary="A file's text",
    responses={200: {"content": {"text/plain": {}}}},
    response_model=TextView,
)
async def get_text(
    request: Request,
    caller: AuthenticatedCaller,
    file_id: str,
    words: Annotated[bool, Query(description="Add every word's box and confidence.")] = False,  # noqa: FBT002 - a query parameter
    accept: Annotated[str, Header()] = "application/json",
) -> TextView | PlainTextResponse:
    """The text by page, as JSON, or as plain text with form feeds between pages for `Accept: text/plain`."""
    services: Services = request.app.state.services
    file, content = await _find(services, caller, file_id)
    pages = await services.files.pages(content.content_id)
    if accept.startswith("text/plain"):
        return PlainTextResponse("\f".join(page.text for page in pages))
    return TextView(file_id=file.file_id, pages=[page_view(page, words=words) for page in pages])


@router.get("/{file_id}/content", summary="The uploaded bytes", response_class=StreamingResponse)
async def get_content(request: Request, caller: AuthenticatedCaller, file_id: str) -> StreamingResponse:
    """Streamed, always as a download: an uploaded file is never shown in our origin."""
    services: Services = request.app.state.services
    _file, content = await _find(services, caller, file_id)
    try:
        size = await services.blobs.size(content.blob_key)
    except BlobMissing as error:
        raise Problem(404, "content_not_found", "The bytes of this file are no longer in the blob store.") from error
    return StreamingResponse(
        services.blobs.stream(content.blob_key),
        media_type="application/octet-stream",
        headers={
            "Content-Length": str(size),
            "Content-Disposition": "attachment",
            "X-Content-Type-Options": "nosniff",
        },
    )


async def _find(services: Services, caller: Caller, file_id: str) -> tuple[File, Content]:
    caller.need(Right.SEE_CONTENTS)
    found = await services.files.get(caller.scope, file_id)
    if found is None:
        raise Problem(404, "file_not_found", f"There is no file {file_id} that this key may see.")
    return found
