"""`python -m simulator`: run until SIGTERM or SIGINT; one JSON line says where it listens."""

import argparse
import asyncio
import json
import signal
from pathlib import Path

from simulator.stage import Simulator


async def run(arguments: argparse.Namespace) -> None:
    """Until a signal."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Simulator(
        smtp_port=arguments.smtp_port,
        http_port=arguments.http_port,
        apns_port=arguments.apns_port,
        folder=arguments.folder,
    ) as simulator:
        where = {"smtp_port": simulator.smtp_port, "http_url": simulator.http_url, "apns_url": simulator.apns_url}
        print(json.dumps(where | {"folder": str(simulator.folder)}), flush=True)  # noqa: T201 - for who started it
        await stop.wait()


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smtp-port", type=int, default=2525)
    parser.add_argument("--http-port", type=int, default=8025)
    parser.add_argument("--apns-port", type=int, default=8026)
    parser.add_argument("--folder", type=Path, default=None, help="For credentials and records.ndjson.")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
