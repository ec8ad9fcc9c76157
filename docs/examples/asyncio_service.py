"""A service that counts the rows of each table that it is sent, and answers questions meanwhile."""

from __future__ import annotations

import asyncio

from pyvo.samp import AsyncSAMPClient


async def main(count: int | None = None) -> int:
    """Run until so many tables have come, or for ever."""
    rows = 0
    client = AsyncSAMPClient(name="Row counter")

    @client.on("x-rows.total")
    async def total() -> dict[str, int]:
        await asyncio.sleep(0)  # a handler may wait for anything
        return {"rows": rows}

    await client.connect(start_hub=True)
    try:
        tables = client.incoming("table.load.*")
        async for table in tables:
            rows += len(table)
            print(f"{table.name}: {len(table)} rows")
            if count is not None:
                count -= 1
                if count == 0:
                    break
        await tables.aclose()
    finally:
        await client.disconnect()
    return rows


if __name__ == "__main__":
    asyncio.run(main())
