#!/usr/bin/env python3
"""Puts known faults into a copy of the headers and checks that the tests find them.

usage: check_faults.py [--compiler CXX] [--jobs N] [--stamp FILE] [word...]  only faults whose description contains a word
       check_faults.py --self-test

The faults are marks in the headers, comments at the end of the line where a statement begins, or on lines of their own
before it, which are continued by lines that are indented further:

    look();  // fault b1: drop: a cancellation does not grant again

    // fault m2: `phase_ == phase::empty` -> `phase_ == phase::empty || phase_ == phase::stopping`:
    //   a newcomer does not wait for the end of a flight that stops
    if (phase_ == phase::empty) {

A mark names the tests that find the fault, a key of TESTS below; what is done to the statement; and what is wrong then, which
no two marks have in common:

    drop           the statement is left out, with all that belongs to it
    never          the condition of the `if` or `while` is evaluated, and counts as false
    always         the same, as true
    `old` -> `new` `old` is replaced: it stands once in the condition, else once behind the = of a declaration, else once in the
                   whole statement
    first `code`   `code` is executed before the statement

All faults are compiled in at once, as switches: a test program is built once, and runs with one fault at a time. The text of
a mark is renamed together with the code around it: what renames must not touch, the tests, is not in it. --self-test renames
each name of the marked headers.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import typing

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONGEST = 120  # seconds for tests without a fault
SHORTEST = 10  # seconds after which tests may be stopped as hanging; more if they take more than a quarter without a fault


class Tests(typing.NamedTuple):
    source: str  # below tests/
    filter: str  # what Catch2 shall run


TESTS = {  # the numbers of behaviours; m: under every schedule, which takes long, so one test case each
    "b1": Tests("sync/shared_mutex_cancel.cpp", "[b1]"),
    "b2": Tests("sync/shared_mutex.cpp", "[b2]"),
    "b3": Tests("sync/shared_mutex.cpp", "[b3]"),
    "b3c": Tests("sync/shared_mutex_chain.cpp", "[b5]"),
    "b4": Tests("sync/shared_mutex.cpp", "[b4]"),
    "b5": Tests("sync/shared_mutex_lifetime.cpp", "[b5]"),
    "b6": Tests("sync/shared_mutex_cancel.cpp", "[b6]"),
    "l1": Tests("sync/shared_mutex.cpp", "downgrading*"),
    "l2": Tests("sync/shared_mutex_run.cpp", "[lock]"),
    "p1": Tests("sync/semaphore.cpp", "[semaphore]"),
    "m1": Tests("model/lock.cpp", "*two writers and a reader exclude each other*"),
    "m1c": Tests("model/lock.cpp", "*a cancelled request gets the lock or an error"),
    "m1d": Tests("model/lock.cpp", "At whatever moment its context dies*"),
    "m1g": Tests("model/lock.cpp", "*a release while another tells"),
    "m1p": Tests("model/lock.cpp", "*nobody passes a head that came and found the lock taken"),
    "m1w": Tests("model/lock.cpp", "A waiter that was passed is released*"),
    "k1": Tests("testing/hand_driven_loop.cpp", "[time]"),
    "b9": Tests("sync/once_cell_cancel.cpp", "[b9]"),
    "b10": Tests("sync/once_cell.cpp", "[b10]"),
    "m2": Tests("model/cell.cpp", "*a caller after the last has left gets a value"),
    "m3": Tests("model/task_queue.cpp", "[pool]"),
    "b13": Tests("exec/blocking_pool_cancel.cpp", "[b13]"),
    "b43": Tests("exec/blocking_pool.cpp", "[b43]"),
    "d1": Tests("exec/deadlines.cpp", "[b43]~[stress]"),
    "d3": Tests("registry/loading.cpp", "A lookup gives up at its deadline*"),
    "b19": Tests("exec/worker_thread.cpp", "[b19]"),
    "b19t": Tests("exec/worker_thread_lifetime.cpp", "[b19]"),
    "b57": Tests("exec/worker_thread_lifetime.cpp", "[b57]"),
    "b23": Tests("exec/stream.cpp", "[b23]"),
    "m4": Tests("model/channel.cpp", "[stream]"),
    "b30": Tests("registry/loading.cpp", "[b30]"),
    "r1": Tests("registry/loading.cpp", "A load that nobody waits for any more*"),
    "s1": Tests("serving/pooled.cpp", "Engines are destroyed before whatever else is queued on their pool"),
    "b39": Tests("registry/nested_loads.cpp", "[b39]"),
}

SWITCH = """#pragma once
#include <cstdlib>
inline const int fault_in_force = std::getenv("PLANTED_FAULT") ? std::atoi(std::getenv("PLANTED_FAULT")) : 0;
inline bool planted_fault(int number) noexcept { return number == fault_in_force; }
"""

LITERAL = re.compile(
    r"""//[^\n]*|/\*.*?\*/|R"([^(\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'""", re.DOTALL)
MARK = re.compile(r"fault (?P<tests>\w+): "
                  r"(?:(?P<word>drop|never|always)|first `(?P<first>[^`]+)`|`(?P<old>[^`]+)` -> `(?P<new>[^`]+)`): "
                  r"(?P<description>[^`:]+)")
CONDITION = re.compile(r"(?:if|while)\b\s*\(")
DECLARATION = re.compile(r"(?:\[\[\w+\]\]\s*)?[\w:<>,&*\s]*[\w>&*]\s+[&*]?\w+\s=\s")


class BadMark(Exception):
    pass


class Mark(typing.NamedTuple):
    position: int  # of the statement
    line: int
    parts: dict  # of MARK


class Fault(typing.NamedTuple):
    number: int
    description: str
    tests: str
    where: str


def blanked(text: str, strings: bool) -> str:
    """The text without comments, and strings if they are to go too; what is left keeps its place."""
    return LITERAL.sub(lambda m: re.sub(r"[^\n]", " ", m[0]) if strings or m[0][0] == "/" else m[0], text)


def closing(shape: str, opening: int) -> int:
    """The position of the bracket that closes the one at `opening`."""
    depth = 0
    for position in range(opening, len(shape)):
        depth += (shape[position] in "([{") - (shape[position] in ")]}")
        if depth == 0:
            return position
    raise BadMark("a bracket is not closed")


def statement_end(shape: str, position: int) -> int:
    """Behind the statement that begins at `position`."""
    def skip(pattern: str) -> typing.Optional[str]:
        nonlocal position
        match = re.compile(pattern).match(shape, position)
        position = match.end() if match else position
        return match and match[0]

    keyword = skip(r"(if|while|for|switch)\b(?=\s*\()")
    if keyword:
        position = closing(shape, shape.index("(", position)) + 1
        skip(r"\s*(\[\[\w+\]\]\s*)?")
        position = statement_end(shape, position)
        return statement_end(shape, position) if keyword == "if" and skip(r"\s*else\b\s*") else position
    if shape[position] == "{":
        return closing(shape, position) + 1
    while shape[position] != ";":
        if shape[position] in ")]}":
            raise BadMark("no statement follows")
        position = closing(shape, position) + 1 if shape[position] in "([{" else position + 1
    return position + 1


def marks_of(text: str) -> list[Mark]:
    marks, code = [], blanked(text, strings=False)
    comments = [m for m in LITERAL.finditer(text) if m[0].startswith("//")]
    alone = [not text[text.rfind("\n", 0, m.start()) + 1:m.start()].strip() for m in comments]
    for index, comment in enumerate(comments):
        if not re.match(r"//\s*fault\b", comment[0]):
            continue
        line, said, end = text.count("\n", 0, comment.start()) + 1, comment[0][2:].strip(), comment.end()
        if alone[index]:
            for further, by_itself in zip(comments[index + 1:], alone[index + 1:]):
                if not by_itself or text[end:further.start()].strip() or not re.match(r"//   +\S", further[0]):
                    break
                said, end = f"{said} {further[0][2:].strip()}", further.end()
        match = MARK.fullmatch(said)
        if not match:
            raise BadMark(f"{line}: this is no mark: {said}")
        begin = end if alone[index] else text.rfind("\n", 0, comment.start()) + 1
        position = re.compile(r"\s*(\}?\s*else\b\s*)?").match(code, begin).end()
        marks.append(Mark(position, line, match.groupdict()))
    return marks


def replaced(text: str, old: str, new: str) -> typing.Optional[str]:
    """Null unless `old` stands in `text` once, however the lines are broken."""
    pattern = r"\s+".join(re.escape(part) for part in old.split())
    pattern = (r"\b" if re.match(r"\w", old) else "") + pattern + (r"\b" if re.search(r"\w$", old) else "")
    changed, count = re.subn(pattern, lambda _: new, text)
    return changed if count == 1 else None


def with_switches(statement: str, marks: list[tuple[int, dict]]) -> str:
    shape, before, whole, inside = blanked(statement, strings=True), "", "", None
    condition, declaration = CONDITION.match(shape), DECLARATION.match(shape)
    if condition:
        inside = condition.end(), closing(shape, condition.end() - 1)
    elif declaration:
        inside = declaration.end(), len(statement) - 1
    original = value = statement[slice(*inside)] if inside else ""
    for number, mark in marks:
        on, within = f"::planted_fault({number})", None
        if mark["first"]:
            before += f"if ({on}) {{ {mark['first']} }} "
        elif mark["word"] == "drop":
            whole += f"if ({on}) {{}} else "
        elif mark["word"]:
            if not condition:
                raise BadMark("the statement has no condition")
            value = f"bool({value}) && !{on}" if mark["word"] == "never" else f"bool({value}) || {on}"
        elif (within := replaced(original, mark["old"], mark["new"])) is not None:
            value = f"{on} ? bool({within}) : bool({value})" if condition else f"{on} ? ({within}) : ({value})"
        elif (within := replaced(statement, mark["old"], mark["new"])) is not None:
            whole += f"if ({on}) {{ {within} }} else "
        else:
            raise BadMark(f"`{mark['old']}` does not stand there once")
    if inside:
        statement = statement[:inside[0]] + value + statement[inside[1]:]
    return before + (f"{{ {whole}{{ {statement} }} }}" if whole else statement)


def plant(text: str, first_number: int = 1) -> tuple[str, list[Mark]]:
    """The text with a switch in the place of each mark."""
    marks = marks_of(text)
    code = blanked(text, strings=False)
    numbered = sorted(enumerate(marks, first_number), key=lambda item: -item[1].position)
    for position, group in itertools.groupby(numbered, key=lambda item: item[1].position):  # what lies within others first
        group = list(group)
        try:
            shape = blanked(code, strings=True)
            if any(mark.parts["first"] for _, mark in group) and shape[:position].rstrip()[-1:] not in tuple(";{}:"):
                raise BadMark("nothing can be done before a statement that has no braces around it")
            end = statement_end(shape, position)
            code = code[:position] + with_switches(code[position:end], [(n, m.parts) for n, m in group]) + code[end:]
        except BadMark as problem:
            raise BadMark(f"{group[0][1].line}: {problem}") from None
    return code, marks


def plant_all(include: pathlib.Path) -> list[Fault]:
    """Puts the switches into the headers below `include`."""
    faults, problems = [], []
    for path in sorted(include.rglob("*.hpp")):
        name = path.relative_to(include)
        try:
            text, marks = plant(path.read_text(), len(faults) + 1)
        except BadMark as problem:
            problems.append(f"{name}:{problem}")
            continue
        if marks:
            path.write_text(text)
        faults += [Fault(number, mark.parts["description"], mark.parts["tests"], f"{name}:{mark.line}")
                   for number, mark in enumerate(marks, len(faults) + 1)]
    problems += [f"{f.where}: no tests are called {f.tests}" for f in faults if f.tests not in TESTS]
    problems += [f"no fault is for the tests {tests}" for tests in TESTS.keys() - {f.tests for f in faults} if not problems]
    counted = collections.Counter(f.description for f in faults)
    problems += [f"{f.where}: not the only one: {f.description}" for f in faults if counted[f.description] > 1]
    if problems:
        sys.exit("\n".join(problems))
    return faults


class Build:
    """A folder with the headers that have the switches, and what all test programs share."""

    def __init__(self, compiler: str, folder: pathlib.Path):
        self.folder = folder
        self.command = [compiler, "-std=c++20", "-O0", "-w", "-pthread", "-DFMT_HEADER_ONLY", f"-I{ROOT}",
                        f"-I{folder / 'include'}"]
        self.shared = folder / "shared"
        self.durations = {}  # without a fault, by tests
        shutil.copytree(ROOT / "include", folder / "include")
        self.shared.mkdir()
        (self.shared / "switch.hpp").write_text(SWITCH)
        (self.shared / "tests.hpp").write_text('#include "switch.hpp"\n#include "tests/support/precompiled.hpp"\n')

    def prepare(self) -> None:
        self.compile("-x", "c++-header", str(self.shared / "tests.hpp"), "-o", str(self.shared / "tests.hpp.gch"))
        self.compile("-c", str(ROOT / "tests/support/main.cpp"), "-o", str(self.shared / "main.o"))

    def compile(self, *arguments: str) -> None:
        subprocess.run([*self.command, *arguments], check=True, capture_output=True, text=True)

    def program(self, source: str) -> pathlib.Path:
        return self.folder / source.replace("/", "_").removesuffix(".cpp")

    def run(self, tests: Tests, fault: int, limit: float) -> subprocess.CompletedProcess:
        return subprocess.run([self.program(tests.source), "--warn", "NoTests", "--abort", tests.filter], capture_output=True,
                              text=True, timeout=limit, env={**os.environ, "PLANTED_FAULT": str(fault)})

    def check_without(self, source: str, tests: list[str]) -> str:
        """Builds a test file. Returns why it is of no use, or nothing."""
        try:
            self.compile("-include", str(self.shared / "tests.hpp"), str(ROOT / "tests" / source), str(self.shared / "main.o"),
                         "-o", str(self.program(source)))
            for each in tests:
                start = time.monotonic()
                run = self.run(TESTS[each], 0, LONGEST)
                if run.returncode != 0 or "No test cases matched" in run.stdout + run.stderr:
                    return f"{source}, {TESTS[each].filter} fails without a fault:\n{run.stdout[-2000:]}"
                self.durations[each] = time.monotonic() - start
        except subprocess.CalledProcessError as error:
            return f"{source} does not compile with the switches:\n{error.stderr[:4000]}"
        except subprocess.TimeoutExpired:
            return f"{source} takes more than {LONGEST} s without a fault"
        return ""

    def found(self, fault: Fault) -> bool:
        try:
            limit = max(SHORTEST, 4 * self.durations[fault.tests])
            return self.run(TESTS[fault.tests], fault.number, limit).returncode != 0
        except subprocess.TimeoutExpired:
            return True


def digest(compiler: str) -> str:
    """Of everything that the result depends on."""
    hashed = hashlib.sha256(subprocess.run([compiler, "--version"], check=True, capture_output=True).stdout)
    for folder in ("include", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".hpp", ".cpp") or path.name == "check_faults.py":
                hashed.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return hashed.hexdigest()


def self_test() -> int:
    def renamed(text: str, name: str) -> str:
        return re.sub(rf"\b{name}\b", "something_else", text)

    failures = renames = 0
    keywords = "if else while for switch return const auto true false fault drop never always first bool planted_fault".split()
    for path in sorted((ROOT / "include").rglob("*.hpp")):
        text = path.read_text()
        planted, marks = plant(text)
        names = set(re.findall(r"\b[A-Za-z_]\w*\b", blanked(text, strings=True))) if marks else set()
        for name in sorted(names.difference(keywords, TESTS)):
            renames += 1
            try:
                same = plant(renamed(text, name))[0].split() == renamed(planted, name).split()
            except BadMark as problem:
                same = print(problem)
            if not same:
                failures += 1
                print(f"{path.name} cannot rename {name}")
    print(f"{renames - failures} of {renames} renamed names do no harm")

    for text, expected in {
        "f();  // fault x: drop: d": "{ if (::planted_fault(1)) {} else { f(); } }",
        "a = b + 1;  // fault x: `b` -> `c`: d": "{ if (::planted_fault(1)) { a = c + 1; } else { a = b + 1; } }",
        "auto a = b;  // fault x: `b` -> `c`: d": "auto a = ::planted_fault(1) ? (c) : (b);",
        "} else if (a) {  // fault x: never: d\n}": "} else if (bool(a) && !::planted_fault(1)) { }",
        "// fault x: drop: d\n// fault x: always: e\nif (a) f();":
            "{ if (::planted_fault(1)) {} else { if (bool(a) || ::planted_fault(2)) f(); } }",
        "if (a) {  // fault x: drop: d\n  f();  // fault x: drop: e\n}":
            "{ if (::planted_fault(1)) {} else { if (a) { { if (::planted_fault(2)) {} else { f(); } } } } }",
        "g();\n// fault x: first `f();`:\n//   d\nauto a = b;": "g(); if (::planted_fault(1)) { f(); } auto a = b;",
        "f();  // fault x: sometimes: d": None,
        "f();  // fault x: drop": None,
        "f();  // fault x: `g` -> `h`: d": None,
        "f(a, a);  // fault x: `a` -> `b`: d": None,
        "f();  // fault x: always: d": None,
        "if (a)\n  f();  // fault x: first `g();`: d": None,
        "{\n  f();\n  // fault x: drop: d\n}": None,
    }.items():
        try:
            planted = " ".join(plant(text)[0].split())
        except BadMark:
            planted = None
        if planted != expected:
            failures += 1
            print(f"expected {expected}, got {planted}, of:\n{text}")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--stamp", type=pathlib.Path, help="a file that remembers that all were found in these sources")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    if options.self_test:
        return 1 if self_test() else 0
    if options.stamp and options.words:
        parser.error("a stamp is for all faults")

    sources = digest(options.compiler)
    if options.stamp and options.stamp.exists() and options.stamp.read_text() == sources:
        print("all were found before, and nothing has changed since")
        return 0

    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(options.jobs) as workers:
        build = Build(options.compiler, pathlib.Path(folder))
        faults = plant_all(build.folder / "include")
        if options.words:
            faults = [f for f in faults if any(word in f.description for word in options.words)]
        if not faults:
            parser.error("no fault matches")
        build.prepare()
        wanted = {}  # tests by source
        for tests in dict.fromkeys(f.tests for f in faults):
            wanted.setdefault(TESTS[tests].source, []).append(tests)
        problems = [p for p in workers.map(build.check_without, wanted.keys(), wanted.values()) if p]
        if problems:
            sys.exit("\n".join(problems))
        found = 0
        for fault, so in zip(faults, workers.map(build.found, faults)):
            print(f"found: {fault.description}" if so else f"NOT FOUND: {fault.description} ({fault.where})", flush=True)
            found += so
    print(f"{found} of {len(faults)} found")
    if options.stamp and found == len(faults):
        options.stamp.write_text(sources)
    return 0 if found == len(faults) else 1


if __name__ == "__main__":
    sys.exit(main())
