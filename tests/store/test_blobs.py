import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from store.blobs import BlobMissing, Blobs

MIB = 1024 * 1024


@pytest.fixture(params=["folder", "file url", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    urls = {"folder": str(tmp_path / "a" / "b"), "file url": f"file://{tmp_path}/a/b", "memory": "memory://"}
    return Blobs.open(urls[request.param])


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def read(blobs: Blobs, key: str) -> bytes:
    return b"".join([chunk async for chunk in blobs.stream(key)])


@pytest.mark.asyncio
async def test_what_is_put_is_got(blobs: Blobs) -> None:
    await blobs.put("files/acme/x", b"first")
    await blobs.put("files/acme/x", b"second")
    assert await blobs.get("files/acme/x") == await read(blobs, "files/acme/x") == b"second"
    assert await blobs.size("files/acme/x") == 6
    assert await blobs.exists("files/acme/x")
    assert not await blobs.exists("files/acme/y")


@pytest.mark.parametrize("sizes", [[], [0], [1], [5 * MIB], [3 * MIB] * 5 + [7], [13 * MIB, 1]])
@pytest.mark.asyncio
async def test_a_stream_of_any_length_is_stored(blobs: Blobs, sizes: list[int], tmp_path: Path) -> None:
    parts = [os.urandom(size) for size in sizes]
    await blobs.put_stream("k", chunks(*parts))
    assert await blobs.get("k") == b"".join(parts)
    assert await read(blobs, "k") == b"".join(parts)
    assert await blobs.size("k") == sum(sizes)
    await blobs.download("k", tmp_path / "copy.pdf")
    assert (tmp_path / "copy.pdf").read_bytes() == b"".join(parts)


@pytest.mark.parametrize("megabytes", [0, 1, 12])
@pytest.mark.asyncio
async def test_a_stream_that_breaks_leaves_nothing(blobs: Blobs, megabytes: int, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        for _ in range(megabytes):
            yield b"x" * MIB
        raise ConnectionResetError("the client left")

    await blobs.put("k", b"before")
    for key in ("new", "k"):
        with pytest.raises(ConnectionResetError, match="the client left"):
            await blobs.put_stream(key, broken())
    assert not await blobs.exists("new")
    assert await blobs.get("k") == b"before"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) in ([], ["k"])


@pytest.mark.asyncio
async def test_a_stream_that_is_cancelled_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    waiting = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 6 * MIB
        waiting.set()
        await asyncio.sleep(60)

    upload = asyncio.create_task(blobs.put_stream("k", slow()))
    await waiting.wait()
    assert not await blobs.exists("k")
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    async with asyncio.timeout(5):
        while [path for path in tmp_path.rglob("*") if path.is_file()]:
            await asyncio.sleep(0.02)  # the part is deleted by another thread
    assert not await blobs.exists("k")


@pytest.mark.parametrize(
    "ask",
    [
        lambda blobs, path: blobs.get("no"),
        lambda blobs, path: read(blobs, "no"),
        lambda blobs, path: blobs.size("no"),
        lambda blobs, path: blobs.download("no", path / "copy"),
        lambda blobs, path: blobs.move("no", "other"),
    ],
    ids=["get", "stream", "size", "download", "move"],
)
@pytest.mark.asyncio
async def test_a_missing_blob_is_said(blobs: Blobs, tmp_path: Path, ask: Callable[[Blobs, Path], Any]) -> None:
    with pytest.raises(BlobMissing, match="no"):
        await ask(blobs, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


@pytest.mark.asyncio
async def test_a_blob_moves_and_replaces(blobs: Blobs) -> None:
    await blobs.put("from/a", b"new")
    await blobs.put("to/b", b"old")
    await blobs.move("from/a", "to/b")
    assert await blobs.get("to/b") == b"new"
    assert not await blobs.exists("from/a")


@pytest.mark.asyncio
async def test_deleting_twice_is_no_error(blobs: Blobs) -> None:
    await blobs.put("k", b"x")
    await blobs.delete("k")
    await blobs.delete("k")
    assert not await blobs.exists("k")


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "a//b"])
@pytest.mark.asyncio
async def test_a_key_cannot_leave_the_store(blobs: Blobs, key: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path"):
        await blobs.put(key, b"x")
    assert not list(tmp_path.rglob("outside"))


@pytest.mark.asyncio
async def test_a_download_that_breaks_leaves_no_file(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_key: str) -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    monkeypatch.setattr(blobs, "stream", broken)
    (tmp_path / "copies").mkdir()
    with pytest.raises(ConnectionResetError):
        await blobs.download("k", tmp_path / "copies" / "x")
    assert list((tmp_path / "copies").iterdir()) == []
