#!/usr/bin/env python3
"""What #include <roster/roster.hpp> costs, against what it cannot do without: user CPU time, the median of 5 compilations.

usage: include_cost.py [compiler...]

Fails when the ratio is above 1.4. Not one of the tests, since a busy machine would make it fail.
"""

import resource
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

INCLUDE = Path(__file__).resolve().parents[2] / "include"
LIMIT = 1.4
RUNS = 5

NEEDED = [
    "boost/asio/awaitable.hpp",
    "boost/asio/co_spawn.hpp",
    "boost/asio/strand.hpp",
    "boost/asio/steady_timer.hpp",
    "boost/asio/any_completion_handler.hpp",
    "boost/unordered/unordered_flat_map.hpp",
    "fmt/format.h",
]


def user_seconds(compiler, headers):
    source = "".join(f"#include <{header}>\n" for header in headers)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([compiler, "-std=c++20", f"-I{INCLUDE}", "-x", "c++", "-c", "-o", "/dev/null", "-"],
                   input=source, text=True, check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def main():
    compilers = sys.argv[1:] or [name for name in ("g++", "clang++-19") if shutil.which(name)]
    failed = False
    for compiler in compilers:
        # In turns, so that a change of the machine's speed reaches both.
        pairs = [(user_seconds(compiler, NEEDED), user_seconds(compiler, ["roster/roster.hpp"])) for _ in range(RUNS)]
        needed, roster = (statistics.median(times) for times in zip(*pairs))
        failed |= roster / needed > LIMIT
        print(f"{compiler}: roster/roster.hpp {roster:.2f} s, what it needs {needed:.2f} s, ratio {roster / needed:.2f}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
