"""50,000 pushes to a local FCM: our channel in a bare loop, Holdfast, BullMQ and Celery, in turns.

What counts is the time from the release (Holdfast: from its 202, or the first push if that is earlier) until the sink
has seen the last device. Taking the jobs in is not part of it. All of it runs on this machine and shares its cores.

    python -m bench.broadcast [--pushes 50000] [--rounds 3] [--celery-pushes 50000] [--only floor,bullmq]
    python -m bench.broadcast --tune bullmq|celery|floor|holdfast [--pushes 5000]
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from itertools import product
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.broadcast import installed
from bench.broadcast.contenders import Bullmq, Celery, Floor, Holdfast
from bench.broadcast.measuring import Measurable, Measured, measure, shape, sink
from bench.broadcast.processes import Failed
from bench.stage import WIDTH, keep, neighbours

CONTENDERS: tuple[Measurable, ...] = (Floor(), Holdfast(), Bullmq(), Celery())
PUSHES = 50_000
OURS = "holdfast"
GRIDS: dict[str, list[Measurable]] = {
    "floor": [Floor(processes, each) for processes, each in product((1, 2), (32, 64, 100))],
    "holdfast": [Holdfast(workers) for workers in (1, 2)],
    "bullmq": [
        *(Bullmq(workers, each) for workers, each in product((1, 2), (25, 50, 100, 200, 400))),
        *(Bullmq(1, each, "fetch") for each in (50, 100)),
    ],
    "celery": [
        *(Celery("prefork", 1, each, prefetch) for each, prefetch in product((2, 4, 8, 16), (4, 64))),
        *(Celery("prefork", 2, each, 4) for each in (1, 2, 4)),
        *(Celery("threads", workers, each, 4) for workers, each in product((1, 2), (8, 32))),
    ],
}


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Least, median, greatest."""
    return " / ".join(f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))


def result_table(results: dict[str, list[Measured]]) -> Table:
    table = Table(
        "", "pushes/s min / median / max", "CPU ms each", "intake s", "lost", "repeats", title="until the last push"
    )
    for name, runs in results.items():
        table.add_row(
            name,
            spread([run.rate for run in runs]),
            f"{median(run.cpu_seconds / run.pushes * 1000 for run in runs):.2f}",
            f"{median(run.intake_seconds for run in runs):.1f}",
            str(sum(run.lost for run in runs)),
            str(sum(run.repeats for run in runs)),
        )
    return table


def ratio_tables(results: dict[str, list[Measured]]) -> list[Table]:
    """Of each round by itself."""
    table = Table("rate of", "per round", "min / median / max", title="ratios")
    for name in ("bullmq", "celery", "floor"):
        if name in results and OURS in results:
            ratios = [ours.rate / theirs.rate for ours, theirs in zip(results[OURS], results[name], strict=True)]
            table.add_row(f"{OURS} / {name}", ", ".join(f"{each:.2f}" for each in ratios), spread(ratios, 2))
    return [table] if table.row_count else []


def notes(results: dict[str, list[Measured]], contenders: Sequence[Measurable], before: float) -> list[str]:
    runs = [run for each in results.values() for run in each]
    said = [f"{contender.name}: {contender}, {results[contender.name][0].pushes} pushes" for contender in contenders]
    said.append("Redis: appendonly yes, appendfsync everysec, no snapshots, a fresh one for each run")
    said.append(installed.versions())
    sink_cpu = sum(run.sink_cpu_seconds for run in runs) / sum(run.pushes + run.repeats for run in runs)
    said.append(f"the sink's own CPU is {sink_cpu * 1e6:.0f} µs a push, and in no contender's figure")
    sizes = {name: f"{len(each[0].body.encode())} + {len(each[0].head)}" for name, each in results.items()}
    said.append("bytes of a push, body + head: " + ", ".join(f"{name} {size}" for name, size in sizes.items()))
    first, *others = results
    said += [
        f"{other} sends another message than {first}: {results[other][0].body} and {results[first][0].body}"
        for other in others
        if shape(results[other][0].body) != shape(results[first][0].body)
    ]
    said.append("CPU is user and system of all a contender's programs from the release until nothing is left to do,")
    said.append("Redis and the Temporal server among them")
    said.append(f"other programs used {before:.0%} of the cores before; repeat above 10 %")
    return said


async def compare(contenders: Sequence[Measurable], pushes: dict[str, int], rounds: int) -> bool:
    """Print, keep what was measured at full length; whether nothing was lost."""
    before = neighbours()
    results: dict[str, list[Measured]] = {contender.name: [] for contender in contenders}
    async with sink() as counter:
        for number in range(1, rounds + 1):
            for contender in contenders:
                run = await measure(contender, pushes[contender.name], counter)
                results[contender.name].append(run)
                print(
                    f"round {number}: {contender.name} {run.rate:.0f}/s, CPU {run.cpu_seconds:.1f} s, "
                    f"intake {run.intake_seconds:.1f} s, lost {run.lost}, repeats {run.repeats}",
                    flush=True,
                )
    tables = [result_table(results), *ratio_tables(results)]
    lines = notes(results, contenders, before)
    if len(contenders) == len(CONTENDERS) and min(each for name, each in pushes.items() if name != "celery") >= PUSHES:
        keep("broadcast_throughput", tables, lines)
    else:
        console = Console(width=WIDTH)
        for table in tables:
            console.print(table)
        print(*lines, sep="\n")
    return not any(run.lost for runs in results.values() for run in runs)


async def tune(name: str, pushes: int, rounds: int) -> None:
    results: dict[str, list[Measured]] = {str(contender): [] for contender in GRIDS[name]}
    async with sink() as counter:
        for number in range(1, rounds + 1):
            for contender in GRIDS[name]:
                run = await measure(contender, pushes, counter)
                results[str(contender)].append(run)
                print(f"round {number}: {contender}: {run.rate:.0f}/s", flush=True)
    table = result_table(results)
    table.title = f"{name}, {pushes} pushes each"
    Console(width=WIDTH).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pushes", type=int, default=PUSHES)
    parser.add_argument("--celery-pushes", type=int, help="its rate is what is compared")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="names, with commas")
    parser.add_argument("--tune", choices=sorted(GRIDS))
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else [each.name for each in CONTENDERS]
    chosen = [each for each in CONTENDERS if each.name in names]
    if len(chosen) != len(names):
        parser.error(f"contenders are {', '.join(each.name for each in CONTENDERS)}")
    pushes = {each.name: arguments.pushes for each in chosen}
    if "celery" in pushes and arguments.celery_pushes:
        pushes["celery"] = arguments.celery_pushes
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # everything is stopped in order
    try:
        installed.ensure()
        if arguments.tune:
            asyncio.run(tune(arguments.tune, arguments.pushes, arguments.rounds))
            return 0
        return 0 if asyncio.run(compare(chosen, pushes, arguments.rounds)) else 1
    except (Failed, installed.NotInstalled, TimeoutError) as error:
        print(str(error) or "timed out", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped by a signal", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
