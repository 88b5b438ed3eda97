#!/usr/bin/env python3
"""Sums up what llvm-cov exports: coverage.py <lcov file> <json file> [--least <percent of lines>]

Prints the share of lines and branches that ran, for each file and for all, and the lines that never did. Exits with 1 when
fewer lines ran than asked for.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def read_lines(path):
    """For each file, how often its lines ran."""
    lines = defaultdict(lambda: defaultdict(int))
    source = None
    for row in Path(path).read_text(encoding="utf-8").splitlines():
        kind, _, rest = row.partition(":")
        if kind == "SF":
            source = rest
        elif kind == "DA":
            line, count = rest.split(",")[:2]
            lines[source][int(line)] = max(lines[source][int(line)], int(count))
    return lines


def read_branches(path):
    """For each file, how often each side of its branches was taken, in any instance of a template."""
    branches = defaultdict(lambda: defaultdict(int))
    for file in json.loads(Path(path).read_text(encoding="utf-8"))["data"][0]["files"]:
        for *place, yes, no, _, _, _ in file["branches"]:
            branches[file["filename"]][(*place, True)] += yes
            branches[file["filename"]][(*place, False)] += no
    return branches


def share(counts):
    ran = sum(1 for count in counts if count > 0)
    return ran, len(counts), 100 * ran / len(counts) if counts else 100.0


def row(name, lines, branches):
    ran, of, percent = share(lines)
    taken, choices, part = share(branches)
    return f"{name:44} {ran:5} of {of:5} lines {percent:6.1f} %  {taken:5} of {choices:5} branches {part:6.1f} %"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines")
    parser.add_argument("branches")
    parser.add_argument("--least", type=float, default=0)
    arguments = parser.parse_args()

    lines, branches = read_lines(arguments.lines), read_branches(arguments.branches)
    for source in sorted(lines):
        name = Path(source).resolve().relative_to(ROOT).as_posix().removeprefix("include/roster/")
        print(row(name, lines[source].values(), branches[source].values()))
    print("\nnever ran:")
    for source in sorted(lines):
        text = Path(source).read_text(encoding="utf-8").splitlines()
        for number in sorted(lines[source]):
            if lines[source][number] == 0:
                print(f"  {Path(source).resolve().relative_to(ROOT)}:{number}: {text[number - 1].strip()}")
    all_lines = [count for counts in lines.values() for count in counts.values()]
    all_branches = [count for counts in branches.values() for count in counts.values()]
    print()
    print(row("all", all_lines, all_branches))
    if not all_lines or share(all_lines)[2] < arguments.least:
        print(f"fewer than {arguments.least:g} % of the lines ran")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
