#include "tests/faults/scenario.hpp"

#include <roster/exec/blocking_pool.hpp>
#include <roster/exec/worker_thread.hpp>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace asio = boost::asio;
using test::memory::allowed;
using test::memory::check;
using test::memory::scenario;
using test::memory::where;

namespace {

int five() {
  return 5;
}
std::string long_text(int length) {
  return std::string(static_cast<std::size_t>(length), 'x');
}

// --- the pool

struct pool_start : scenario {
  void attempt() {
    roster::blocking_pool pool{2};
    if (pool.running() != 0) throw std::logic_error("runs");
  }
};

struct pool_scenario : scenario {
  roster::blocking_pool pool{1, 1};
  bool as_it_was(bool) { return pool.queued() == 0 && pool.waiting() == 0; }
};

struct pool_run : pool_scenario {
  void attempt() {
    if (run(pool.run(five)) != 5) throw std::logic_error("no result");
    if (run(pool.run(roster::call_options(), long_text, 100)).size() != 100) throw std::logic_error("no text");
  }
};

struct pool_try_run : pool_scenario {
  void attempt() {
    // A thread that has delivered may not be idle yet, but then there is room in the queue.
    if (run(pool.try_run(five)) != 5) throw std::logic_error("no result");
  }
};

struct pool_run_detachable : pool_scenario {
  void attempt() {
    if (run(pool.run_detachable(roster::call_options(), five)) != 5) throw std::logic_error("no result");
  }
};

struct pool_async_run : pool_scenario {
  void attempt() {
    call([&](auto handler) { pool.async_run(five, std::move(handler)); });
  }
};

struct pool_stop : pool_scenario {
  void attempt() {
    run(pool.stop());
    call([&](auto handler) { pool.async_stop(std::move(handler)); });
  }
};

// --- the worker

struct state {
  std::vector<int> values = std::vector<int>(10, 3);
};

struct worker_scenario : scenario {
  roster::worker_thread<state> worker{loop.get_executor(), [] { return state(); }};
};

struct worker_start : worker_scenario {
  void attempt() { run(worker.start()); }
};

int third(state& s) {
  return s.values.at(3);
}

struct worker_first_run : worker_scenario {
  void attempt() {
    if (run(worker.run(third)) != 3) throw std::logic_error("no result");
  }
};

struct worker_run : worker_first_run {
  worker_run() { run(worker.start()); }
};

struct worker_async_run : worker_scenario {
  worker_async_run() { run(worker.start()); }
  void attempt() {
    call([&](auto handler) { worker.async_run(third, std::move(handler)); });
  }
};

struct worker_stop : worker_scenario {
  worker_stop() { run(worker.start()); }
  void attempt() { run(worker.stop()); }
};

// --- the stream

struct stream_scenario : worker_scenario {
  stream_scenario() { run(worker.start()); }

  /// What the reader gets when the call that feeds the stream is gone.
  bool expects(const std::exception&) const {
    return test::code_of(std::current_exception()) == asio::error::operation_aborted;
  }

  /// Two chunks and the end.
  static asio::awaitable<void> read(roster::stream<std::string>& chunks) {
    for (int i = 0; i < 2; ++i) {
      const auto chunk = co_await chunks.next();
      if (!chunk || chunk->size() != 100) throw std::logic_error("no chunk");
    }
    if (co_await chunks.next()) throw std::logic_error("no end");
  }

  static void produce(state&, roster::sink<std::string>& chunks, roster::run_context&) {
    chunks.push(long_text(100));
    chunks.push(long_text(100));
  }
};

struct stream_next : stream_scenario {
  void attempt() {
    auto chunks = worker.start_stream<std::string>(roster::call_options(), produce, 1);
    run(read(chunks));
  }
};

struct stream_async_next : stream_scenario {
  void attempt() {
    auto chunks = worker.start_stream<std::string>(roster::call_options(), produce, 1);
    for (int i = 0; i < 3; ++i)
      call([&](auto handler) { chunks.async_next(std::move(handler)); });
  }
};

struct stream_drop : stream_scenario {
  void attempt() {
    { const auto chunks = worker.start_stream<std::string>(roster::call_options(), produce, 1); }
    run(worker.run(third));  // behind it
  }
};

}  // namespace

TEST_CASE("A pool whose construction runs out of memory leaves nothing behind") {
  check<pool_start>("blocking_pool", allowed::nothing);
  check<pool_start>("blocking_pool, all threads", allowed::nothing, where::all_threads);
}

TEST_CASE("A pool's calls never leak and never hang, whichever allocation of the caller fails") {
  check<pool_run>("run", allowed::escape);
  check<pool_try_run>("try_run", allowed::escape);
  check<pool_run_detachable>("run_detachable", allowed::escape);
  check<pool_async_run>("async_run", allowed::nothing);
  check<pool_stop>("stop", allowed::both);
}

TEST_CASE("A pool's calls never leak and never hang, whichever allocation of any thread fails") {
  check<pool_run>("run, all threads", allowed::both, where::all_threads);
  check<pool_async_run>("async_run, all threads", allowed::termination, where::all_threads);
}

TEST_CASE("A worker's calls never leak and never hang, whichever allocation of the caller fails") {
  check<worker_start>("start", allowed::both);
  check<worker_first_run>("run, first", allowed::both);
  check<worker_run>("run, started", allowed::escape);
  check<worker_async_run>("async_run", allowed::escape);
  check<worker_stop>("stop", allowed::escape);
}

TEST_CASE("A worker's calls never leak and never hang, whichever allocation of any thread fails") {
  check<worker_first_run>("run, first, all threads", allowed::both, where::all_threads);
  check<worker_run>("run, started, all threads", allowed::both, where::all_threads);
}

TEST_CASE("A stream never leaks and never hangs, whichever allocation fails") {
  check<stream_next>("next", allowed::both);
  check<stream_next>("next, all threads", allowed::both, where::all_threads);
  check<stream_async_next>("async_next", allowed::both);
  check<stream_drop>("a dropped stream", allowed::both);
}
