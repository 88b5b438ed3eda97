#!/usr/bin/env python3
"""Checks the rules for sources that no compiler checks.

usage: check_sources.py [--self-test]

- include/roster blocks nowhere but where a line, or the one before it, says on which thread: "// blocks: a pool thread".
- A std::mutex is taken only where that line says that it is held for a bounded moment: "// short:".
- A header includes its own floor and those below; engines, what a call carries, and policies know nothing of Asio.
- No co_await expression holds what g++ 12 miscompiles: a capturing lambda, a braced temporary or a conditional that
  makes a temporary, or is an arm of one.
- Nothing in include/roster is awaited while a lock is held, a mutex's or an async_shared_mutex's.

--self-test breaks each rule in a copy of the sources and fails unless the check finds it.
"""

import functools
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# From the ground up: a header includes its own floor and those below.
FLOORS = ["", "call", "detail", "sync", "exec", "capability", "registry", "serving", "testing", "http", "remote", "server"]
TEST_NAME = re.compile(r'TEST_CASE(?:_METHOD)?\(\s*(?:\w+,\s*)?"([^"]*)"')
OPTIONAL = ["testing", "engines", "http", "remote", "server", "src.hpp"]  # roster.hpp does without them

BLOCKING = [
    r"\bstd::shared_(timed_)?mutex\b",
    r"\bstd::condition_variable(_any)?\b",
    r"\bstd::(counting_semaphore|binary_semaphore|barrier|latch)\b",
    r"\bstd::(shared_)?future\b|\bstd::promise\b|\bstd::async\b|\bstd::packaged_task\b|\buse_future\b",
    r"\w*future\w*(\.|->)get\s*\(",
    r"(\.|->)(wait|wait_for|wait_until|arrive_and_wait)\s*\(|(\.|->)join\s*\(\s*\)",
    r"\b(sleep_for|sleep_until|sleep|usleep|nanosleep)\s*\(",
    r"\bstd::(basic_)?(i|o)?fstream\b|\bfopen\s*\(|\bstd::(cin|getline)\b",
]
LOCKING = [
    r"\bstd::(lock_guard|unique_lock|scoped_lock|shared_lock)\b",
    r"^(?!.*co_await).*\bmutex_?(\.|->)lock(_shared)?\s*\(",
]
# What declares the owner of a lock, up to its name; and what takes one whose declaration came before.
HOLDING = re.compile(r"""\bstd::(?:lock_guard|unique_lock|scoped_lock|shared_lock)\b[^;(){}&]*?\b(?P<mutex>\w+)\s*[({]
    | \bscoped_hold<\w+>\s+(?P<hold>\w+)\s*[({]
    | \b(?P<guard>\w+)\s*=\s*(?:co_await\b[^;]*?\b(?:async_)?lock|[^;{}]*?\btry_lock)(?:_shared)?\s*\(""", re.VERBOSE)
# Missing from standard libraries that are to work, or misread by ThreadSanitizer.
UNPORTABLE = [r"\bstd::(jthread|stop_token|stop_source|move_only_function|atomic_thread_fence)\b"]

LITERAL = re.compile(
    r"""//[^\n]*|/\*.*?\*/|R"([^(\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'""", re.DOTALL)
INCLUDE = re.compile(r"""^\s*#\s*include\s*[<"]([^>"]+)[>"]""", re.MULTILINE)


@functools.cache
def without_literals(text):
    """The text with comments, strings and characters blanked out; lines keep their numbers and columns."""
    return LITERAL.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def closing(text, opening):
    """The position of the bracket that closes the one at `opening`, or the end of the text."""
    depth = 0
    for position in range(opening, len(text)):
        depth += (text[position] in "([{") - (text[position] in ")]}")
        if depth == 0:
            return position
    return len(text)


def starts_lambda(text, position):
    """Whether the [ at `position` introduces a lambda; it may also be a subscript or an attribute."""
    before = re.search(r"(\w+|\S)?\s*$", text[max(0, position - 100):position]).group(1) or ""
    keyword = re.fullmatch(r"(co_)?(return|await|yield)", before)
    subscript = before in (")", "]", "[") or (re.fullmatch(r"\w+", before) and not keyword)
    return not subscript and text[position + 1:position + 2] != "["


def expression_around(text, position):
    """The bounds of the full expression at `position`."""
    depth = 0  # of complete brackets that lie before it
    while position > 0:
        before = text[position - 1]
        if before == "}" and depth == 0 and not re.match(r"\s*[,.)]", text[position:]):
            break  # a block ends here; a braced temporary would be followed by the rest of its expression
        control = before == "(" and re.search(r"\b(if|for|while|switch)\s*\($", text[max(0, position - 20):position])
        if depth == 0 and (before in ";{" or control):
            break
        depth = max(0, depth + (before in ")]}") - (before in "([{"))
        position -= 1
    begin = position
    while position < len(text) and text[position] not in ";)]}":
        position = closing(text, position) if text[position] in "([{" else position
        position += 1
    return begin, position


def in_conditional_arm(text):
    """Whether what follows `text`, the beginning of a full expression, is in an arm of a conditional."""
    inside = [False]  # for each open bracket
    for character in text:
        if character in "([{":
            inside.append(False)
        elif character in ")]}":
            inside = inside[:-1] or [False]
        elif character in "?,":
            inside[-1] = character == "?"
    return any(inside)


def makes_temporary(text, question_mark):
    """Whether an arm of the conditional calls or constructs something: its value may be of a class type."""
    end = question_mark + 1
    while end < len(text) and text[end] not in ";,)]}(":
        end += 1
    return text[end:end + 1] == "("


@functools.cache
def what_blocks(text):
    """Lines and descriptions of what blocks, or locks, in `text` and does not say where."""
    found = []
    lines, code = text.splitlines(), without_literals(text).splitlines()
    for index, line in enumerate(code):
        marks = "\n".join(lines[max(index - 1, 0):index + 1])
        blocks = re.search(r"//.*\bblocks: *\w", marks)
        short = re.search(r"//.*\bshort:", marks)
        for patterns, permitted, message in [
            (BLOCKING, blocks, "blocks; say where: // blocks: <thread>"),
            (LOCKING, blocks or short, "takes a mutex; say for how long: // short: or // blocks: <thread>"),
            (UNPORTABLE, False, "is not portable"),
        ]:
            match = next(filter(None, (re.search(pattern, line) for pattern in patterns)), None)
            if match and not permitted:
                found.append((index + 1, f"'{match.group().strip()}' {message}"))
    return found


@functools.cache
def forbidden_in_co_await(text):
    """Positions and descriptions of what must not stand in the co_await expressions of `text` (without literals)."""
    found = set()
    for match in re.finditer(r"\bco_await\b", text):
        position, end = expression_around(text, match.start())
        if re.match(r"\}\s*[,.)]", text[end:]):
            found.add((match.start(), "a braced temporary around a co_await expression"))
        in_arm = in_conditional_arm(text[position:match.start()])
        if in_arm:
            found.add((match.start(), "a co_await expression in an arm of a conditional"))
        while position < end:
            if text[position] == "?" and not in_arm and position > match.start() and makes_temporary(text, position):
                found.add((position, "a conditional with a temporary in a co_await expression"))
            if text[position] == "{":
                found.add((position, "a braced temporary in a co_await expression"))
                position = closing(text, position)
            elif text[position] == "[" and starts_lambda(text, position):
                captures_end = closing(text, position)
                if text[position + 1:captures_end].strip():
                    found.add((position, "a lambda with captures in a co_await expression"))
                position = closing(text, text.find("{", captures_end))
            position += 1
    return found


def awaited_under_lock(text):
    """Positions of the co_awaits of `text` (without literals) in the scope of a lock, unless that was let go of before."""
    for lock in HOLDING.finditer(text):
        name = lock.group(lock.lastgroup)
        held, outer = True, []  # an unlock counts to the end of its block, which may be a branch that leaves the function
        for token in re.compile(rf"[{{}}]|\bco_await\b|\b{name}\s*\.\s*(un)?lock\s*\(").finditer(text, lock.end()):
            if token.group() == "{":
                outer.append(held)
            elif token.group() == "}":
                if not outer:
                    break
                held = outer.pop()
            elif token.group() != "co_await":
                held = token.group(1) is None
            elif held:
                yield token.start(), name


class Checker:
    def __init__(self, root):
        self.root = root
        self.include = root / "include"
        self.headers = sorted((self.include / "roster").rglob("*.hpp"))
        self.findings = []

    def report(self, path, line, message):
        self.findings.append(f"{path.relative_to(self.root)}:{line}: {message}")

    def run(self):
        for path in self.headers:
            text = path.read_text()
            for line, message in what_blocks(text):
                self.report(path, line, message)
            self.check_includes(path, text)
            code = without_literals(text)
            for position, name in awaited_under_lock(code):
                self.report(path, line_of(code, position), f"something is awaited while '{name}' holds a lock")
        self.check_umbrella()
        refused = self.root / "tests/project/compile"  # on purpose
        for path in self.headers + sorted(p for f in ("examples", "tests") for p in (self.root / f).rglob("*.[ch]pp")):
            if path.parent != refused:
                text = path.read_text()
                self.check_co_await(path, text)
                for match in TEST_NAME.finditer(text):
                    if ";" in match.group(1):
                        self.report(path, line_of(text, match.start(1)), "CTest splits the name of a test at ;")
        readme = self.root / "README.md"
        if readme.exists():
            # Prose is blanked out, so that the findings have the right lines.
            text, code = readme.read_text(), re.compile(r"^```cpp$(.*?)^```$", re.DOTALL | re.MULTILINE)
            blank = list(re.sub(r"[^\n]", " ", text))
            for block in code.finditer(text):
                blank[block.start(1):block.end(1)] = block.group(1)
            self.check_co_await(readme, "".join(blank))
        return self.findings

    def check_includes(self, path, text):
        if "#pragma once" not in text:
            self.report(path, 1, "no #pragma once")
        parts = path.relative_to(self.include / "roster").parts
        floor = parts[0] if len(parts) > 1 else ""
        for match in INCLUDE.finditer(text):
            target, line = match.group(1), line_of(text, match.start(1))
            if target == "boost/asio.hpp" or re.match(r"boost/(beast|json)", target) and floor not in ("http", "remote", "server"):
                self.report(path, line, f"<{target}> is too large for this header")
            if target.startswith("boost/asio/experimental/") and parts[-2:] != ("detail", "asio.hpp"):
                self.report(path, line, f"<{target}> moves between versions of Boost; only detail/asio.hpp includes it")
            if path.name not in ("roster.hpp", "src.hpp") and not self.may_include(parts, target):
                self.report(path, line, f"<{target}> is not for this floor")

    def includes_of(self, path):
        return INCLUDE.findall(path.read_text()) if path.exists() else []

    @staticmethod
    def may_include(parts, target):
        """Whether a header, by the parts of its path, may include `target`."""
        floor = parts[0] if len(parts) > 1 else ""
        apart = "policy" in parts or floor == "engines"  # stands on call/ alone
        if not target.startswith("roster/"):
            return not (target.startswith("boost/asio") and (apart or floor in ("", "call")))
        if target == "roster/roster.hpp":
            return False
        own = parts[:-1] if "policy" in parts else parts[:1] if floor else ()
        folders = tuple(target.split("/")[1:-1])
        lower = FLOORS[:FLOORS.index("call") + 1] if apart else FLOORS[:FLOORS.index(floor)]
        return folders[:max(len(own), 1)] == own or (folders[0] if folders else "") in lower

    def check_umbrella(self):
        umbrella = self.include / "roster" / "roster.hpp"
        reached, pending = set(), [umbrella] if umbrella.exists() else []
        while pending:
            path = pending.pop()
            if path not in reached:
                reached.add(path)
                pending += [self.include / target for target in self.includes_of(path) if target.startswith("roster/")]
        for path in self.headers if reached else []:
            optional = path.relative_to(self.include / "roster").parts[0] in OPTIONAL
            if optional == (path in reached):
                relation = "must not reach" if optional else "does not reach"
                self.report(umbrella, 1, f"{relation} {path.relative_to(self.include)}")

    def check_co_await(self, path, text):
        text = without_literals(text)
        for position, message in sorted(forbidden_in_co_await(text)):
            self.report(path, line_of(text, position), message + "; name it first")


# Where, what and, when it breaks a rule, a part of what the check has to say.
FAULTS = [
    ("tests/x.cpp", 'TEST_CASE("It does this; and that", "[b1]") {}', "CTest splits"),
    ("tests/x.cpp", 'TEST_CASE_METHOD(fixture, "It does this; and that") {}', "CTest splits"),
    ("include/roster/sync/x.hpp", "inline std::shared_mutex m;", "blocks"),
    ("include/roster/sync/x.hpp", "inline std::condition_variable c;", "blocks"),
    ("include/roster/sync/x.hpp", "void f(auto& c, auto& l) { c.wait(l); }", "blocks"),
    ("include/roster/exec/x.hpp", "int f(auto& future) { return future.get(); }", "blocks"),
    ("include/roster/exec/x.hpp", "inline void f(std::thread& t) { t.join(); }", "blocks"),
    ("include/roster/exec/x.hpp", "inline void f() { std::this_thread::sleep_for(std::chrono::seconds(1)); }", "blocks"),
    ("include/roster/registry/x.hpp", "inline void f() { std::ifstream file(\"x\"); }", "blocks"),
    ("include/roster/registry/x.hpp", "inline void f(std::mutex& m) { std::lock_guard lock(m); }", "takes a mutex"),
    ("include/roster/registry/x.hpp", "// blocks:\nauto f(auto& c) { return c.wait(); }", "blocks"),
    ("include/roster/exec/x.hpp", "inline std::jthread t;", "not portable"),
    ("include/roster/sync/x.hpp", "#include <roster/registry/x.hpp>", "not for this floor"),
    ("include/roster/x.hpp", "#include <roster/sync/x.hpp>", "not for this floor"),
    ("include/roster/detail/x.hpp", "#include <roster/sync/x.hpp>", "not for this floor"),
    ("include/roster/sync/detail/x.hpp", "#include <roster/exec/x.hpp>", "not for this floor"),
    ("include/roster/sync/x.hpp", "#include <roster/exec/detail/x.hpp>", "not for this floor"),
    ("include/roster/call/x.hpp", "#include <roster/detail/asio.hpp>", "not for this floor"),
    ("include/roster/call/x.hpp", "#include <boost/asio/post.hpp>", "not for this floor"),
    ("include/roster/serving/policy/x.hpp", "#include <roster/serving/x.hpp>", "not for this floor"),
    ("include/roster/serving/policy/x.hpp", "#include <roster/detail/asio.hpp>", "not for this floor"),
    ("include/roster/exec/x.hpp", "#include <roster/engines/x.hpp>", "not for this floor"),
    ("include/roster/registry/x.hpp", "#include <roster/serving/x.hpp>", "not for this floor"),
    ("include/roster/registry/x.hpp", "#include <roster/roster.hpp>", "not for this floor"),
    ("include/roster/sync/x.hpp", "#include <boost/asio.hpp>", "too large"),
    ("include/roster/sync/x.hpp", "#include <boost/asio/experimental/channel.hpp>", "only detail/asio.hpp"),
    ("include/roster/engines/x.hpp", "#include <roster/detail/asio.hpp>", "not for this floor"),
    ("include/roster/engines/opencv/x.hpp", "#include <boost/asio/post.hpp>", "not for this floor"),
    ("include/roster/sync/x.hpp", "auto f() { co_await run([p] { return p; }); }", "captures"),
    ("include/roster/sync/x.hpp", "auto f() { auto x = co_await run(1, [&]() mutable { return p; }, token); }", "captures"),
    ("include/roster/sync/x.hpp", "auto f() { if (co_await run([p] { return p; })) { g(); } }", "captures"),
    ("include/roster/sync/x.hpp", "auto f() { g([p] { return p; }, co_await run()); }", "captures"),
    ("include/roster/sync/x.hpp", "auto f() { co_await run(options{.n = 2}); }", "braced"),
    ("include/roster/sync/x.hpp", "auto f() { co_await run(\"x\", {}); }", "braced"),
    ("include/roster/sync/x.hpp", "auto f() { g({1}, co_await run()); }", "braced"),
    ("include/roster/sync/x.hpp", "auto f() { co_return co_await run(std::array<T, 2>{a, b}); }", "braced"),
    ("include/roster/sync/x.hpp", "auto f() { g(options{co_await run()}); }", "braced"),
    ("include/roster/sync/x.hpp", "auto f() { auto x = c ? co_await a() : co_await b(); }", "arm of a conditional"),
    ("include/roster/sync/x.hpp", "auto f() { co_return c() ? 1 : co_await b(); }", "arm of a conditional"),
    ("include/roster/sync/x.hpp", "auto f() { co_await (c ? a(s) : b(s)); }", "a conditional with"),
    ("include/roster/sync/x.hpp", "auto f() { g(1, co_await a(c ? x : std::string())); }", "a conditional with"),
    ("include/roster/sync/x.hpp", "auto f() { co_return c[1] ? x : g(1, (co_await b()).value()); }", "arm of a conditional"),
    ("include/roster/sync/x.hpp", "auto f() { g(c ? co_await a() : b, 1); }", "arm of a conditional"),
    ("include/roster/sync/x.hpp", "auto f() { if (c ? co_await a() : b) { g(); } }", "arm of a conditional"),
    ("include/roster/sync/x.hpp", "auto f() { auto x = co_await a() ? 1 : co_await b(); }", "arm of a conditional"),
    ("include/roster/sync/x.hpp", "auto f() { co_await run(box{1}, x); }", "braced"),
    ("include/roster/sync/x.hpp", "auto f() { co_await run({400, \"a\", \"b\"}); }", "braced"),
    ("examples/x.cpp", "auto f() {\n  co_await run(\n      [p] { return p; });\n}", "captures"),
    ("tests/x.cpp", "auto f() { co_await run([p] { return p; }); }", "captures"),
    ("examples/support/x.hpp", "auto f() { co_await run([p] { return p; }); }", "captures"),
    ("include/roster/sync/x.hpp", "auto f() { std::lock_guard lock(m);  // short:\n co_await x(); }", "while 'lock' holds"),
    ("include/roster/sync/x.hpp",
     "auto f() { std::scoped_lock<std::mutex> l(m);  // short:\n if (a) { co_await x(); } }", "while 'l'"),
    ("include/roster/sync/x.hpp",
     "auto f() { std::unique_lock lock(m);  // short:\n lock.unlock(); g(); lock.lock(); co_await x(); }", "while 'lock'"),
    ("include/roster/sync/x.hpp",
     "auto f() { std::unique_lock lock(m);  // short:\n if (a) { lock.unlock(); co_return; } co_await x(); }", "while 'lock'"),
    ("include/roster/sync/x.hpp",
     "auto f() { const auto guard = co_await s->mutex.lock_shared(); co_await x(); }", "while 'guard'"),
    ("include/roster/sync/x.hpp", "auto f() { { auto g = co_await m.lock(); co_return co_await x(); } }", "while 'g'"),
    ("include/roster/sync/x.hpp", "auto f() { if (auto g = m.try_lock()) { co_await x(); } }", "while 'g'"),
    ("README.md", "prose {}\n```cpp\nco_await run([p] { return p; });\n```\n", "captures"),
    ("include/roster/sync/x.hpp", "#include <vector>  // not reached by roster.hpp", "does not reach"),
    # and what is in order
    ("include/roster/engines/x.hpp", "inline void f(std::mutex& m) { std::lock_guard lock(m); }  // short:", None),
    ("include/roster/engines/x.hpp", "// blocks: the pool's threads\ninline std::condition_variable c;", None),
    ("include/roster/engines/x.hpp", "// a std::shared_mutex would .wait( here\ninline auto s = \"std::shared_mutex\";", None),
    ("include/roster/engines/x.hpp", "#include <roster/version.hpp>", None),
    ("examples/x.cpp", "auto f() { for (auto x : co_await run([] { return T{1}; })) { g([x] {}); } }", None),
    ("examples/x.cpp", "auto f() { if (p) { g({1}); } co_await run(a[i], b[co_await c()]); T t{co_await d()}; }", None),
    ("examples/x.cpp", "auto f() { auto x = co_await run() ? 1 : 2; auto y = g(c ? 1 : 2, co_await run()); }", None),
    ("examples/x.cpp", "auto f() { co_await run(c ? a : b); auto x = (c ? a : b) + co_await run(c ? 1 : 2); }", None),
    ("examples/x.cpp", "auto f() { auto x = c ? a : b; co_await run(); if (c ? a : b) co_await run(); }", None),
    ("examples/x.cpp", "auto f() { auto x = c ? spawn([]() -> T<void> { co_await run(); }) : b; }", None),
    ("examples/x.cpp", "auto f() { while (auto x = co_await s.next()) g(T{*x}); spawn([p]() { co_await p->run(); }); }",
     None),
    ("examples/x.cpp", "auto f = [](auto& x) -> T<void> { if (co_await x.f()) { T{1}; } else { g([x] {}); } };", None),
    ("include/roster/engines/x.hpp",
     "auto f() { { std::lock_guard lock(m); }  // short:\n { auto guard = co_await n.lock(); g(); } co_await x(); }", None),
    ("include/roster/engines/x.hpp",
     "auto f() { auto guard = co_await n.lock(); if (g()) { guard.unlock(); co_await x(); } }", None),
    ("include/roster/engines/x.hpp", "auto f() { auto alive = weak.lock(); co_await x(alive); }", None),
    ("README.md", "prose co_await f([p] {});\n```cpp\nauto g = [p] {}; co_await f(g);\n```\n", None),
]


def self_test():
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(ROOT / "include", root / "include")
        (root / "examples/support").mkdir(parents=True)
        (root / "tests").mkdir()
        before = set(Checker(root).run())
        for name, text, expected in FAULTS:
            path = root / name
            original = path.read_text() if path.exists() else None
            path.write_text("#pragma once\n" + text if path.suffix == ".hpp" else text)
            added = set(Checker(root).run()) - before
            path.unlink() if original is None else path.write_text(original)
            if not any(expected in finding for finding in added) if expected else added:
                failures += 1
                print(f"expected {expected or 'nothing'}, found {sorted(added) or 'nothing'}, in {name}:\n{text}")
    print(f"{len(FAULTS) - failures} of {len(FAULTS)} judged right")
    return failures


def main():
    if sys.argv[1:] == ["--self-test"]:
        return 1 if self_test() else 0
    findings = Checker(ROOT).run()
    print("\n".join(findings) if findings else "no findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
