"""A data directory with its database, and what comes into it."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Engine, func, select, update

from service.intake.accept import accept, accept_reference
from service.intake.sandbox import Sandbox
from service.store.database import slides, writing
from service.store.slides import StoredSlide
from service.store.storage import Incoming, Storage

DAY_S = 86400.0


@dataclass(frozen=True)
class Stores:
    """Where slides go."""

    engine: Engine
    storage: Storage
    sandbox: Sandbox

    async def upload(self, content: bytes, name: str = "case 7.svs", tenant: str = "lab") -> StoredSlide:
        async with Incoming(self.storage, 1 << 30) as incoming:
            for start in range(0, len(content), 1 << 16):
                await incoming.write(content[start : start + (1 << 16)])
            return await accept(self.engine, self.storage, self.sandbox, incoming, name, tenant)

    def uploaded(self, content: bytes, name: str = "case 7.svs", tenant: str = "lab") -> StoredSlide:
        return asyncio.run(self.upload(content, name, tenant))

    def upload_many(self, contents: Iterable[bytes]) -> None:
        for content in contents:
            self.uploaded(content)

    def referred(self, uri: str, *roots: str) -> StoredSlide:
        return asyncio.run(accept_reference(self.engine, self.sandbox, uri, roots, "lab"))

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.storage.folder)) for path in self.storage.folder.rglob("*.*"))

    def slide_files(self) -> list[str]:
        return [path for path in self.files() if path.startswith(("slides/", "incoming/")) and "lock" not in path]

    def rows(self) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(slides)).scalar_one())

    def age(self, stored: StoredSlide, days: float) -> None:
        with writing(self.engine) as connection:
            values = {"used_at": time.time() - days * DAY_S}
            connection.execute(update(slides).where(slides.c.id == stored.id).values(**values))
