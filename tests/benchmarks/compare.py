#!/usr/bin/env python3
"""Runs ours and the peers in turn and compares them. Called by tests/benchmarks/run.

usage: compare.py <build folder> [--tokio <program>] [--rounds <n>] [--no-curves] [--only <part of a row>]

A program runs one measurement once. A round runs ours and each peer of a row, one after the other, so that whatever slows the
machine down hits them all; a row's ratio is the median of its rounds' ratios. A bar is met, or missed, when the middle half of
the ratios lies on that side of it, by more than the processes of one machine differ from each other; otherwise the verdict is
"within noise". Beside a missed bar stands the floor, where it was measured: the ratio that is left to the least one could do.
Prints a table; writes results.json and, for each curve, an SVG.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import curves

MUTEX = "std::shared_mutex + unordered_map"
STRAND = "strand-per-acquire lock"
FLOOR = "bare map"
PING_PONG = "condition-variable ping-pong"
ASIO = "asio::thread_pool"

# The least one could do.
COUNTED = "bare map, readers counted"
COUNTED_GET = "readers counted, through a coroutine"
POINTER = "an atomic pointer"
FLOORS = {COUNTED, COUNTED_GET, POINTER}

# (what, our measurement, [(peer, its program, its measurement, bar or None)])
ROWS = [
    ("co_await get, ready, 64 entries", "get",
     [("tokio", "tokio", "get", 1.1), ("tokio, Rust's default hash", "tokio", "get_default_hash", None),
      (MUTEX, "ours", "shared_mutex", 2.0), (FLOOR, "ours", "bare_map", None), (COUNTED_GET, "ours", "counted_get", 1.1)]),
    ("try_get", "try_get",
     [(MUTEX, "ours", "shared_mutex", 1.0), ("tokio", "tokio", "try_get", 1.0),
      ("tokio, Rust's default hash", "tokio", "try_get_default_hash", None), (FLOOR, "ours", "bare_map", 1.8),
      (COUNTED, "ours", "counted", 1.05)]),
    ("get on two threads at once", "get_on_two_threads",
     [("tokio", "tokio", "get_on_two_threads", 0.85), (MUTEX, "ours", "shared_mutex_on_two_threads", None),
      ("ours on one thread", "ours", "get", None)]),
    ("8 coroutines, 2 threads, 10 % writes", "read_mostly", [("tokio", "tokio", "read_mostly", 1.5)]),
    ("lock under full contention, 2 threads", "contended",
     [(STRAND, "ours", "strand_contended", 0.5), ("tokio", "tokio", "contended", 1.1)]),
    ("lock hand-off, 8 waiters", "hand_off",
     [(STRAND, "ours", "strand_hand_off", 0.5), ("tokio", "tokio", "hand_off", None),
      ("the holder's post alone", "ours", "post", 1.6)]),
    ("once-cell, ready", "cell_ready", [("tokio OnceCell", "tokio", "cell_ready", 1.0), (POINTER, "ours", "pointer", None)]),
    ("pool.run, 64 in flight", "pool_in_flight",
     [("tokio spawn_blocking", "tokio", "pool_in_flight", 0.15), (ASIO, "ours", "asio_in_flight", 1.2)]),
    ("pool.run, one at a time", "pool_one",
     [(PING_PONG, "ours", "ping_pong", 1.2), ("tokio spawn_blocking", "tokio", "pool_one", None)]),
    ("stream chunk, capacity 64", "stream_chunk", [("tokio mpsc", "tokio", "stream_chunk", 1.0)]),
    ("pinned call, one at a time", "pinned_one", [(PING_PONG, "ours", "ping_pong", 1.3)]),
]

# (what, name in the output of benchmark_allocations, bar)
ALLOCATIONS = [
    ("allocations per ready get", "get", 0),
    ("allocations per pool.run", "pool_run", 2),
    ("allocations per chunk, engine ahead", "stream_engine_ahead", 0),
    ("allocations per chunk, reader waits", "stream_reader_waits", 0),
]
STEADY = 0.01  # a queue that grows once in a while is no cost of an operation

HEARTBEAT_BAR = 2.0  # milliseconds above the bare loop
HEARTBEAT_ROUNDS = 5

# (title, file name, what the sizes count, sizes, [(label, program, measurement)])
CURVES = [
    ("get: nanoseconds by number of entries", "get", "entries", [64, 1_000, 10_000, 100_000, 1_000_000],
     [("roster get", "ours", "get"), ("roster try_get", "ours", "try_get"), ("tokio", "tokio", "get"),
      (MUTEX, "ours", "shared_mutex"), (FLOOR, "ours", "bare_map")]),
    ("lock hand-off: nanoseconds by number of waiters", "waiters", "waiters", [1, 10, 100, 1_000, 10_000, 100_000],
     [("roster", "ours", "hand_off"), ("tokio", "tokio", "hand_off"), (STRAND, "ours", "strand_hand_off")]),
    ("streams of 16 chunks: nanoseconds per chunk by number of open streams", "streams", "streams",
     [1, 10, 100, 1_000, 10_000], [("roster", "ours", "streams"), ("tokio mpsc", "tokio", "streams")]),
]
CURVE_ROUNDS = 5


class Programs:
    def __init__(self, build, tokio):
        self.paths = {"ours": build / "benchmark_measurements"}
        self.allocations = build / "benchmark_allocations"
        for name in ("benchmark_measurements", "benchmark_allocations"):
            if not (build / name).exists():  # where CMake puts it
                found = next(build.glob(f"**/{name}"), None)
                if found is None:
                    sys.exit(f"{name} was not built")
                if name == "benchmark_allocations":
                    self.allocations = found
                else:
                    self.paths["ours"] = found
        if tokio:
            self.paths["tokio"] = tokio

    def has(self, program):
        return program in self.paths

    def measure(self, program, measurement, size=None):
        command = [str(self.paths[program]), measurement] + ([str(size)] if size else [])
        return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300, text=True).stdout)

    def count_allocations(self):
        output = subprocess.run([str(self.allocations)], stdout=subprocess.PIPE, check=True, timeout=300, text=True).stdout
        return {name: float(count) for name, count in (line.split() for line in output.splitlines())}


def middle_half(values):
    if len(values) < 3:
        return min(values), max(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


RESOLUTION = 0.03  # the same program, started twice, differs from itself by this much: where the system put its pages


def verdict(low, high, bar):
    if bar is None:
        return ""
    if high <= bar * (1 - RESOLUTION):
        return "met"
    return "missed" if low > bar * (1 + RESOLUTION) else "within noise"


def compare(programs, row, rounds):
    what, own, peers = row
    peers = [peer for peer in peers if programs.has(peer[1])]
    ours, theirs = [], [[] for _ in peers]
    for _ in range(rounds):
        ours.append(programs.measure("ours", own))
        for times, peer in zip(theirs, peers):
            times.append(programs.measure(peer[1], peer[2]))
    floor = next((times for times, peer in zip(theirs, peers) if peer[0] in FLOORS), None)
    for times, (name, _, _, bar) in zip(theirs, peers):
        ratios = [a / b for a, b in zip(ours, times)]
        low, high = middle_half(ratios)
        judged = verdict(low, high, bar)
        if judged == "missed" and floor:
            judged += f", floor {statistics.median(a / b for a, b in zip(floor, times)):.2f}"
        yield {"what": what, "peer": name, "unit": "ns", "ours": statistics.median(ours),
               "theirs": statistics.median(times), "ratio": statistics.median(ratios), "spread": [low, high], "bar": bar,
               "verdict": judged, "ours_all": ours, "theirs_all": times}


def allocations(programs):
    counts = programs.count_allocations()
    for what, name, bar in ALLOCATIONS:
        yield {"what": what, "peer": "", "unit": "", "ours": counts[name], "bar": bar,
               "verdict": "met" if counts[name] <= bar + STEADY else "missed"}


def heartbeat(programs):
    ours, bare, blocking = [], [], []
    for _ in range(HEARTBEAT_ROUNDS):
        ours.append(programs.measure("ours", "heartbeat"))
        bare.append(programs.measure("ours", "heartbeat_bare"))
    blocking.append(programs.measure("ours", "heartbeat_blocking"))
    differences = [a - b for a, b in zip(ours, bare)]
    low, high = middle_half(differences)
    what = "heartbeat, p99.9 lateness"
    yield {"what": what, "peer": "bare loop", "unit": "ms", "ours": statistics.median(ours), "theirs": statistics.median(bare),
           "difference": statistics.median(differences), "spread": [low, high], "bar": HEARTBEAT_BAR,
           "verdict": verdict(low, high, HEARTBEAT_BAR), "ours_all": ours, "theirs_all": bare}
    yield {"what": what, "peer": "blocking version", "unit": "ms", "ours": statistics.median(ours),
           "theirs": statistics.median(blocking), "bar": None, "verdict": ""}


def line(row):
    def number(value):
        return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"

    def time(key):
        return f"{number(row[key])} {row['unit']}".strip() if key in row else ""

    bar = "" if row["bar"] is None else f"<= {row['bar']}"
    ratio = ""
    if "ratio" in row:
        ratio = "{:.2f} ({:.2f} to {:.2f})".format(row["ratio"], *row["spread"])
    elif "difference" in row:
        ratio = "{:+.2f} ms ({:+.2f} to {:+.2f})".format(row["difference"], *row["spread"])
        bar = f"<= +{row['bar']} ms"
    return [row["what"], time("ours"), row["peer"], time("theirs"), ratio, bar, row["verdict"]]


HEADINGS = ["what", "ours", "peer", "peer's", "ratio (middle half)", "bar", "verdict"]


def print_table(rows):
    cells = [HEADINGS] + [line(row) for row in rows]
    widths = [max(len(each[i]) for each in cells) for i in range(len(HEADINGS))]
    for i, each in enumerate(cells):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(each, widths)) + " |")
        if i == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def measure_curve(programs, sizes, lines):
    """For each line, the median at each size; sizes and lines take turns in each round."""
    lines = [each for each in lines if programs.has(each[1])]
    times = {label: [[] for _ in sizes] for label, _, _ in lines}
    for _ in range(CURVE_ROUNDS):
        for i, size in enumerate(sizes):
            for label, program, measurement in lines:
                times[label][i].append(programs.measure(program, measurement, size))
    return {label: [statistics.median(each) for each in points] for label, points in times.items()}


def machine():
    try:
        names = [text.split(":", 1)[1].strip() for text in Path("/proc/cpuinfo").read_text().splitlines()
                 if text.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def load():
    return "load {:.1f} {:.1f} {:.1f}".format(*os.getloadavg())


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("build", type=Path)
    parser.add_argument("--tokio", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-curves", action="store_true")
    parser.add_argument("--only", help="rows whose name has this in it, nothing else")
    arguments = parser.parse_args()
    programs = Programs(arguments.build, arguments.tokio)
    before = load()

    rows = []
    for row in ROWS:
        if not arguments.only or arguments.only in row[0]:
            print(f"... {row[0]}", file=sys.stderr)
            rows.extend(compare(programs, row, arguments.rounds))
    if not arguments.only or "allocations" in arguments.only:
        rows.extend(allocations(programs))
    if not arguments.only or "heartbeat" in arguments.only:
        print("... heartbeat", file=sys.stderr)
        rows.extend(heartbeat(programs))

    results = {"machine": machine(), "rounds": arguments.rounds, "load_before": before, "load_after": load(), "rows": rows,
               "curves": {}}
    if not arguments.no_curves and not arguments.only:
        for title, name, counted, sizes, lines in CURVES:
            print(f"... {title}", file=sys.stderr)
            measured = measure_curve(programs, sizes, lines)
            results["curves"][name] = {"sizes": sizes, "nanoseconds": measured}
            (arguments.build / f"{name}.svg").write_text(curves.draw(title, counted, sizes, measured))
    if not arguments.only:
        (arguments.build / "results.json").write_text(json.dumps(results, indent=1) + "\n")

    print(f"\n{results['machine']}; {arguments.rounds} rounds; {before}, afterwards {results['load_after']}\n")
    print_table(rows)
    for name, curve in results["curves"].items():
        print(f"\n{name}, ns at " + ", ".join(f"{size:,}" for size in curve["sizes"]) + f" ({arguments.build}/{name}.svg)")
        for label, times in curve["nanoseconds"].items():
            print(f"  {label:34} " + " ".join(f"{time:9.1f}" for time in times))


if __name__ == "__main__":
    main()
