#!/usr/bin/env python3
"""What including the library costs: user seconds of the compiler, beside a program that does the same with Asio and fmt alone.

usage: include_cost.py [compiler]

Each ratio is that of the medians of 3 compilations, taken in turns, so that a change of the machine's speed reaches both sides.
Fails when one is above its aim. Not one of the tests, since a busy machine would make it fail.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).resolve().parent / "include_cost"
ROUNDS = 3
SEPARATE = "-DROSTER_SEPARATE_COMPILATION"
OPENCV = Path("/usr/include/opencv4")

BARE = PROGRAMS / "bare.cpp"
CAPABILITIES = PROGRAMS / "capabilities.cpp"
QUICKSTART = ROOT / "examples/quickstart.cpp"
FOUR_PLACEMENTS = ROOT / "examples/ask_draw_read.cpp"


def compile_once(compiler, source, options):
    """User seconds and megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [compiler, "-std=c++20", "-DNDEBUG", "-w", '-DROSTER_EXAMPLE_MODELS=""', f"-I{ROOT / 'include'}",
                   f"-I{ROOT}", *options, "-c", str(source), "-o", f"{folder}/program.o"]
        process = os.posix_spawnp(compiler, command, os.environ)
        _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit(f"include_cost.py: {' '.join(command)} failed")
    return usage.ru_utime, usage.ru_maxrss / 1024


def main():
    compiler = (sys.argv[1:] or ["g++"])[0]
    runs = {
        "bare, -O3": (BARE, ["-O3"]),
        "quickstart, -O3": (QUICKSTART, ["-O3"]),
        "quickstart, separate compilation, -O3": (QUICKSTART, ["-O3", SEPARATE]),
        "bare, -O2": (CAPABILITIES, ["-O2", "-DCAPABILITIES=0"]),
        "one capability, -O2": (CAPABILITIES, ["-O2", "-DCAPABILITIES=1"]),
        "two capabilities, -O2": (CAPABILITIES, ["-O2", "-DCAPABILITIES=2"]),
    }
    if OPENCV.exists():
        runs["four placements, -O2"] = (FOUR_PLACEMENTS, ["-O2", "-isystem", str(OPENCV)])
    taken = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, (source, options) in runs.items():
            taken[name].append(compile_once(compiler, source, options))
    seconds = {name: statistics.median(time for time, _ in each) for name, each in taken.items()}
    megabytes = {name: statistics.median(memory for _, memory in each) for name, each in taken.items()}

    for name in runs:
        print(f"{compiler}: {name}: {seconds[name]:.1f} s, {megabytes[name]:.0f} MB")
    o3, o2 = seconds["bare, -O3"], seconds["bare, -O2"]
    one, two = seconds["one capability, -O2"], seconds["two capabilities, -O2"]
    figures = [
        ("quickstart / bare", seconds["quickstart, -O3"] / o3, 1.5),
        ("quickstart, separate compilation / bare", seconds["quickstart, separate compilation, -O3"] / o3, 1.1),
        ("first capability adds", (one - o2) / o2, 0.5),
        ("a further one adds", (two - one) / o2, 0.17),
    ]
    if "four placements, -O2" in runs:
        figures.append(("four placements / bare", seconds["four placements, -O2"] / o2, 2.9))
        figures.append(("four placements, MB", megabytes["four placements, -O2"], 700))
    failed = False
    for name, figure, aim in figures:
        failed |= figure > aim
        print(f"{name}: {figure:.2f} (aim: at most {aim}){'' if figure <= aim else ' missed'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
