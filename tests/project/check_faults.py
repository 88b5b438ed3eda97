#!/usr/bin/env python3
"""Puts known faults into a copy of the headers and checks that the tests find them.

usage: check_faults.py [--compiler CXX] [--jobs N] [word...]      only faults whose description contains a word
"""

import argparse
import concurrent.futures
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import typing

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 60  # of one test program; a hang counts as found where the headers without the fault take a quarter at most


class Fault(typing.NamedTuple):
    description: str
    header: str  # below include/roster/
    old: str  # occurs once
    new: str
    source: str  # the test file below tests/ that is compiled
    tests: str  # what Catch2 shall run


FAULTS = [
    # sync/shared_mutex
    Fault("a reader's release wakes nobody",
          "detail/lock_state.hpp",
          "if (!(word & (writer | readers)) && word >= waiter) [[unlikely]]",
          "if (!(word & (writer | readers)) && word >= waiter && hold == writer) [[unlikely]]",
          "sync/shared_mutex.cpp", "[b2]"),
    Fault("a cancellation does not grant again",
          "detail/lock_state.hpp",
          "look();  // those behind it may have been waiting only for it",
          "",
          "sync/shared_mutex_cancel.cpp", "[b1]"),
    Fault("a waiter is resumed inside the release",
          "detail/pending_handler.hpp",
          "asio::require(executor, asio::execution::blocking.never)",
          "asio::require(executor, asio::execution::blocking.possibly)",
          "sync/shared_mutex.cpp", "[b3]"),
    Fault("a waiter that does not live on a loop is resumed inside the release",
          "detail/pending_handler.hpp",
          "asio::post(*home_.other, ",
          "asio::dispatch(*home_.other, ",
          "sync/shared_mutex.cpp", "[b3]"),
    Fault("a release that comes while another grants is forgotten",
          "detail/lock_state.hpp",
          "    granting_ = false;\n  }",
          "    lock.unlock();\n    lock.lock();\n    granting_ = false;\n  }",
          "model/lock.cpp", "[lock]"),
    Fault("a head that was passed by a writer does not close the gate",
          "detail/lock_state.hpp",
          "if (!free && !passed && !(word & readers)) return false;",
          "if (!free && !(word & readers)) return false;",
          "model/lock.cpp", "[lock]"),
    Fault("a release that leaves the granting to another leaves the gate open",
          "detail/lock_state.hpp",
          "if (released && !queue_.empty()) word_.fetch_or(fair, std::memory_order_relaxed);",
          "",
          "model/lock.cpp", "[lock]"),
    Fault("a reader's release looks for waiters before it releases",
          "detail/lock_state.hpp",
          "const auto word = word_.fetch_sub(hold, std::memory_order_acq_rel) - hold;",
          "const auto word = word_.load(std::memory_order_acquire) - hold;"
          " word_.fetch_sub(hold, std::memory_order_acq_rel);",
          "model/lock.cpp", "[lock]"),
    Fault("a waiter is announced after it has looked at the lock",
          "detail/lock_state.hpp",
          "queue_.push_back(std::move(node));\n    if (queue_.size() == 1) grant(lock, false);",
          "queue_.push_back(std::move(node));\n"
          "    word_.fetch_sub(waiter, std::memory_order_acq_rel);\n"
          "    const bool taken = word_.load(std::memory_order_acquire) & (writer | readers);\n"
          "    word_.fetch_add(waiter, std::memory_order_acq_rel);\n"
          "    if (!taken) grant(lock, false);\n",
          "model/lock.cpp", "[lock]"),
    Fault("the gate stays closed when the queue empties",
          "detail/lock_state.hpp",
          "word_.fetch_and(~fair, std::memory_order_relaxed);",
          ";",
          "sync/shared_mutex.cpp", "[b2]"),
    Fault("the gate is never closed",
          "detail/lock_state.hpp",
          "& ~fair : word | fair;",
          "& ~fair : word;",
          "sync/shared_mutex.cpp", "[b2]"),
    Fault("a downgrade lets no reader in",
          "detail/lock_state.hpp",
          "if (word_.fetch_add(reader - writer, std::memory_order_acq_rel) >= waiter) look();",
          "word_.fetch_add(reader - writer, std::memory_order_acq_rel);",
          "sync/shared_mutex.cpp", "[lock]"),
    Fault("a head that came and found the lock taken leaves the gate open",
          "detail/lock_state.hpp",
          "if (!take(node->mode, true)) {",
          "if (!take(node->mode, false)) {",
          "sync/shared_mutex.cpp", "[b2]"),
    Fault("a waiter that was woken is told twice",
          "detail/lock_state.hpp",
          "      if (node->woken_) node = nullptr;\n",
          "",
          "model/lock.cpp", "[lock]"),
    Fault("a waiter that is destroyed on its way stays in the queue",
          "detail/lock_state.hpp",
          "  lock_->cancel(waiter_);\n",
          "",
          "sync/shared_mutex_lifetime.cpp", "[b5]"),
    Fault("a handler is destroyed before the node that it may own, on its way home",
          "detail/pending_handler.hpp",
          "[[maybe_unused]] const auto taken = take(std::move(pending_));",
          "(void)take(std::move(pending_));",
          "sync/shared_mutex_lifetime.cpp", "[b5]"),
    Fault("a handler is destroyed before the node that it may own, on its way to the lock",
          "detail/pending_handler.hpp",
          "    [[maybe_unused]] const auto handler = std::move(handler_);\n",
          "",
          "sync/shared_mutex_lifetime.cpp", "[b5]"),
    Fault("a waiter that was passed is kept beyond the lock's mutex",
          "detail/lock_state.hpp",
          "      node = nullptr;  // under the mutex: not the last reference, which must not outlive the handler\n",
          "",
          "model/lock.cpp", "[lock]"),
    Fault("a waiter that is on its way is handed the lock",
          "detail/lock_state.hpp",
          "    if (queue_.front().woken_) return nullptr;  // it will look\n",
          "",
          "model/lock.cpp", "[lock]"),
    Fault("a waiter that was woken leaves those behind it to themselves",
          "detail/lock_state.hpp",
          "    if (node->mode == lock_mode::shared) grant(lock, false);  // other readers\n",
          "",
          "sync/shared_mutex.cpp", "[b2]"),
    Fault("a lock whose context died queues newcomers",
          "detail/lock_state.hpp",
          "      closed_ = true;\n",
          "",
          "sync/shared_mutex_lifetime.cpp", "[b5]"),
    # sync/once_cell
    Fault("the first caller's cancellation kills the flight",
          "detail/cell_state.hpp",
          "if (waiters_.empty() && phase_ == phase::running) {",
          "if (phase_ == phase::running) {",
          "sync/once_cell_cancel.cpp", "[b9]"),
    Fault("a cell retains its failure",
          "detail/cell_state.hpp",
          "phase_ = phase::empty;\n        told.",
          "phase_ = phase::closed;\n        told.",
          "sync/once_cell_cancel.cpp", "[b9]"),
    Fault("a newcomer is told that somebody else was cancelled",
          "detail/cell_state.hpp",
          "} else if (phase_ == phase::stopping && !waiters_.empty()) {",
          "} else if (false) {",
          "sync/once_cell_cancel.cpp", "[b9]"),
    Fault("an initialiser may wait for itself",
          "detail/cell_state.hpp",
          "|| from_inside) {",
          "|| (from_inside && false)) {",
          "sync/once_cell.cpp", "[b10]"),

    Fault("a flight that was asked to stop takes newcomers for its own",
          "detail/cell_state.hpp",
          "        phase_ = phase::stopping;\n",
          "",
          "model/cell.cpp", "[cell]"),
    Fault("a newcomer does not wait for the end of a flight that stops",
          "detail/cell_state.hpp",
          "if (phase_ == phase::empty) {",
          "if (phase_ == phase::empty || phase_ == phase::stopping) {",
          "model/cell.cpp", "[cell]"),

    # exec/blocking_pool
    Fault("one more call is accepted than there is room for",
          "detail/task_queue.hpp",
          "only_if_room && queue_.size() >= room()",
          "only_if_room && queue_.size() > room()",
          "model/task_queue.cpp", "[pool]"),
    Fault("a push wakes a thread only when the queue was empty",
          "detail/task_queue.hpp",
          "wake = idle_ > woken_;",
          "wake = idle_ > woken_ && queue_.size() == 1;",
          "model/task_queue.cpp", "[pool]"),
    Fault("a call that runs can be taken back",
          "detail/task_queue.hpp",
          "if (!work->queued() || work->started) return false;",
          "if (!work->queued()) return false;",
          "model/task_queue.cpp", "[pool]"),
    Fault("a pool that closes wakes one thread",
          "detail/task_queue.hpp",
          "wake_.notify_all();",
          "wake_.notify_one();",
          "model/task_queue.cpp", "[pool]"),
    Fault("a thread counts as busy when its caller knows that the call is over",
          "detail/task_queue.hpp",
          "      ended.deliver(std::move(done));\n",
          "      {\n"
          "        std::lock_guard lock(mutex_);\n"
          "        running_.push_back(done);\n"
          "      }\n"
          "      ended.deliver(std::shared_ptr<task>(done));\n"
          "      {\n"
          "        std::lock_guard lock(mutex_);\n"
          "        running_.erase(*done);\n"
          "      }\n",
          "model/task_queue.cpp", "[pool]"),
    Fault("a reader parks without looking again",
          "detail/channel.hpp",
          "if (count(word) > 0 || (word & (ended | gone)))",
          "if (word & gone)",
          "model/channel.cpp", "[stream]"),
    Fault("a thread that was woken in vain counts as woken for ever",
          "detail/task_queue.hpp",
          "if (woken_ > 0) --woken_;",
          "",
          "model/task_queue.cpp", "[pool]"),
    Fault("a producer is woken without the mutex",
          "detail/channel.hpp",
          "    { std::lock_guard lock(mutex_); }  // short:\n",
          "",
          "model/channel.cpp", "[stream]"),
    Fault("a failure overtakes the chunks before it",
          "detail/channel.hpp",
          "if (count(word) > 0) {\n      take",
          "if (count(word) > 0 && !(word & ended)) {\n      take",
          "exec/stream.cpp", "[b23]"),

    # exec/worker_thread
    Fault("a stopped worker takes calls",
          "detail/worker_core.hpp",
          "    stopped_ = true;\n    return current_;",
          "    return current_;",
          "exec/worker_thread_lifetime.cpp", "[b57]"),
    Fault("a worker caches a failed start",
          "detail/worker_core.hpp",
          "    if (!stopped_) current_ = fresh;\n    return !stopped_;",
          "    if (!stopped_ && !current_) current_ = fresh;\n    return current_ == fresh;",
          "exec/worker_thread.cpp", "[b19]"),
    Fault("threads that have ended are joined at the end only",
          "detail/thread_group.hpp",
          "      group->join_ended();\n",
          "",
          "exec/worker_thread_lifetime.cpp", "[b19]"),

    # registry
    Fault("a circle of loads is not seen",
          "detail/load_graph.hpp",
          "if (reaches(edge.to_, edge.from_)) return false;",
          "",
          "registry/nested_loads.cpp", "[b39]"),
    Fault("a load that nobody waits for any more has failed",
          "detail/registry_entry.hpp",
          "if (cancellation.cancelled() == asio::cancellation_type::none)",
          "if (true)",
          "registry/loading.cpp", "A load that nobody waits for any more*"),
    Fault("an entry keeps the error of a load that failed before",
          "detail/registry_entry.hpp",
          "lazy.remember(nullptr);",
          "",
          "registry/loading.cpp", "[b30]"),
]


class Build:
    """A folder with a copy of the headers, and what all test programs share."""

    def __init__(self, compiler: str, folder: pathlib.Path):
        self.folder = folder
        self.command = [compiler, "-std=c++20", "-O0", "-w", "-pthread", "-DFMT_HEADER_ONLY", f"-I{ROOT}"]
        self.shared = folder / "shared"
        self.shared.mkdir()
        self.lock = threading.Lock()
        self.programs = {}  # built from the headers as they are, by test file
        self.durations = {}  # of what they were run with
        (self.shared / "tests.hpp").write_text('#include "tests/support/precompiled.hpp"\n')

    def prepare(self) -> None:
        self.compile("-x", "c++-header", str(self.shared / "tests.hpp"), "-o", str(self.shared / "tests.hpp.gch"))
        self.compile("-c", str(ROOT / "tests/support/main.cpp"), "-o", str(self.shared / "main.o"))

    def compile(self, *arguments: str) -> None:
        subprocess.run([*self.command, *arguments], check=True, capture_output=True, text=True)

    def compile_test(self, include: pathlib.Path, source: str, program: pathlib.Path) -> None:
        self.compile(f"-I{include}", "-include", str(self.shared / "tests.hpp"), str(ROOT / "tests" / source),
                     str(self.shared / "main.o"), "-o", str(program))

    @staticmethod
    def run(program: pathlib.Path, tests: str) -> subprocess.CompletedProcess:
        return subprocess.run([program, "--warn", "NoTests", "--abort", tests], capture_output=True, text=True,
                              timeout=TIMEOUT_SECONDS)

    def duration_without(self, fault: Fault) -> float:
        """How many seconds the fault's tests take with the headers as they are. Infinite if they do not pass."""
        with self.lock:
            if fault.source not in self.programs:
                self.programs[fault.source] = self.folder / f"without{len(self.programs)}"
                self.compile_test(ROOT / "include", fault.source, self.programs[fault.source])
            key = fault.source, fault.tests
            if key not in self.durations:
                start = time.monotonic()
                try:
                    passed = self.run(self.programs[fault.source], fault.tests).returncode == 0
                except subprocess.TimeoutExpired:
                    passed = False
                self.durations[key] = time.monotonic() - start if passed else float("inf")
            return self.durations[key]

    def find(self, number: int, fault: Fault) -> str:
        """Returns why the fault counts as not found, or nothing."""
        folder = self.folder / str(number)
        shutil.copytree(ROOT / "include", folder / "include")
        header = folder / "include/roster" / fault.header
        text = header.read_text()
        if text.count(fault.old) != 1:
            return f"its text occurs {text.count(fault.old)} times in {fault.header}"
        header.write_text(text.replace(fault.old, fault.new))
        program = folder / "program"
        try:
            self.compile_test(folder / "include", fault.source, program)
        except subprocess.CalledProcessError as error:
            return "it does not compile:\n" + error.stderr[:2000]
        try:
            run = self.run(program, fault.tests)
        except subprocess.TimeoutExpired:
            if self.duration_without(fault) > TIMEOUT_SECONDS / 4:
                return f"its tests were stopped after {TIMEOUT_SECONDS} s, and are too slow, or fail, without it"
            return ""
        if "No test cases matched" in run.stdout + run.stderr:
            return f"no test is tagged {fault.tests}"
        return "it survived" if run.returncode == 0 else ""


def digest(compiler: str) -> str:
    """Of everything that the result depends on."""
    hashed = hashlib.sha256(subprocess.run([compiler, "--version"], check=True, capture_output=True).stdout)
    for folder in ("include", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".hpp", ".cpp") or path.name == "check_faults.py":
                hashed.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return hashed.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--stamp", type=pathlib.Path, help="a file that remembers that all were found in these sources")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    faults = [f for f in FAULTS if not options.words or any(w in f.description for w in options.words)]
    if not faults:
        parser.error("no fault matches")
    if options.stamp and options.words:
        parser.error("a stamp is for all faults")

    sources = digest(options.compiler)
    if options.stamp and options.stamp.exists() and options.stamp.read_text() == sources:
        print(f"all {len(faults)} were found before, and nothing has changed since")
        return 0

    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(options.jobs) as workers:
        build = Build(options.compiler, pathlib.Path(folder))
        build.prepare()
        failures = 0
        for fault, problem in zip(faults, workers.map(build.find, range(len(faults)), faults)):
            print(f"{'NOT FOUND' if problem else 'found'}: {fault.description}" + (f": {problem}" if problem else ""),
                  flush=True)
            failures += bool(problem)
    if options.stamp and not failures:
        options.stamp.write_text(sources)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
