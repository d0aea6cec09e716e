"""Local copies of blobs for child processes, which open files by path."""

import asyncio
import hashlib
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from contracts.errors import FailureKind, failure
from store.blobs import BlobMissing, Blobs


class Scratch:
    """Steps of one worker that need the same blob share one copy, deleted when the last of them ends.

    What a killed worker left behind is deleted at the next start.
    """

    def __init__(self, *, blobs: Blobs, folder: Path) -> None:
        self._blobs = blobs
        self._folder = folder
        self._users: Counter[str] = Counter()
        self._locks: dict[str, asyncio.Lock] = {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    @asynccontextmanager
    async def copy(self, key: str) -> AsyncIterator[Path]:
        """A readable file with the blob's bytes, for the length of the block.

        Raises:
            ApplicationError: `blob_missing`, final.
        """
        path = self._folder / hashlib.sha256(key.encode()).hexdigest()
        self._users[key] += 1
        try:
            async with self._locks.setdefault(key, asyncio.Lock()):
                if not path.exists():
                    try:
                        await self._blobs.download(key, path)
                    except BlobMissing as error:
                        msg = f"blob {key} is missing: it was deleted, or HOLDFAST_BLOBS_URL points elsewhere"
                        raise failure(FailureKind.REJECTED, "blob_missing", msg) from error
            yield path
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]
                path.unlink(missing_ok=True)
