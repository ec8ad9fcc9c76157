"""A service that counts the rows of each table that arrives, and replies to requests for the total meanwhile."""

from __future__ import annotations

import asyncio

from pyvo.samp import AsyncSAMPClient


async def main(count: int | None = None) -> int:
    """Run until ``count`` tables have arrived; without it, until ^C."""
    rows = 0
    client = AsyncSAMPClient(name="Row counter")

    @client.on("x-rows.total")
    async def total() -> dict[str, int]:
        await asyncio.sleep(0)  # a handler may await anything
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
