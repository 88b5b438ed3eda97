#include "tests/faults/scenario.hpp"

#include "tests/support/exec.hpp"

#include <roster/exec/blocking_pool.hpp>
#include <roster/exec/worker_thread.hpp>

#include <boost/asio/bind_executor.hpp>

#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace asio = boost::asio;
using test::memory::allowed;
using test::memory::check;
using test::memory::construction;
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

state make_state() {
  return {};
}

using worker_thread = roster::worker_thread<state>;

struct worker_scenario : scenario {
  std::atomic<std::size_t> running{0};  // counted by `obey`
  worker_thread worker{loop.get_executor(), make_state};
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

/// The first call, which says where the worker lives.
struct worker_run_options : worker_scenario {
  void attempt() {
    const auto options = roster::call_options().on("a device whose name is too long to be stored in place");
    if (run(worker.run(options, third)) != 3) throw std::logic_error("no result");
    if (run(worker.run_detachable(options, third)) != 3) throw std::logic_error("no result");
  }
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

// --- calls that wait, of both

/// Work that runs until it is told to stop.
struct obey {
  std::atomic<std::size_t>* running;
  int operator()(roster::run_context& context) const {
    ++*running;
    while (!context.stop_requested())
      std::this_thread::yield();
    --*running;
    context.throw_if_stop_requested();
    return 0;
  }
  int operator()(state&, roster::run_context& context) const { return (*this)(context); }
};

struct answer {
  int operator()() const { return 5; }
  int operator()(state&) const { return 5; }
};

std::size_t depth(const roster::blocking_pool& pool) {
  return pool.running() + pool.queued() + pool.waiting();
}
std::size_t depth(const worker_thread& worker) {
  return worker.depth();
}

/// A pool or a worker, busy with so many calls before each attempt.
template <typename Owner, std::size_t Calls>
struct busy : scenario {
  std::atomic<std::size_t> running{0};
  std::optional<Owner> owner;

  busy() { make(); }

  void make() {
    if constexpr (std::is_same_v<Owner, worker_thread>)
      owner.emplace(loop.get_executor(), make_state);
    else
      owner.emplace(1U, 0U);
    if (Calls > 0) owner->async_run(obey{&running}, asio::bind_executor(loop.get_executor(), [](auto&&...) {}));
    drive([&] { return running == Calls; });
  }

  bool as_it_was(bool) { return !owner || depth(*owner) == Calls; }
};

template <typename Owner>
struct cancelled_wait : busy<Owner, 1> {
  void attempt() {
    this->cancel([&](auto handler) { this->owner->async_run(answer(), std::move(handler)); },
                 [&] { return depth(*this->owner) == 2; });
  }
};

template <typename Owner>
struct cancelled_run : busy<Owner, 0> {
  void attempt() {
    this->cancel([&](auto handler) { this->owner->async_run(obey{&this->running}, std::move(handler)); },
                 [&] { return this->running > 0; });
  }
};

template <typename Owner>
struct cancelled_detached_run : busy<Owner, 0> {
  void attempt() {
    this->cancel(this->spawning([&] { return this->owner->run_detachable(roster::call_options(), obey{&this->running}); }),
                 [&] { return this->running > 0; });
  }
  bool as_it_was(bool) { return true; }  // the work may not have noticed yet
};

template <typename Owner>
struct cancelled_stop : busy<Owner, 1> {
  void attempt() {
    this->cancel(this->spawning([&] { return this->owner->stop(); }));
  }
};

template <typename Owner>
struct destroyed_owner : busy<Owner, 1> {
  void attempt() {
    if (!this->owner) this->make();
    this->fail(
        roster::errc::stopped, [&](auto handler) { this->owner->async_run(answer(), std::move(handler)); },
        [&] { this->owner.reset(); }, [&] { return depth(*this->owner) == 2; });
  }
};

/// Its state is not made before the end.
struct cancelled_start : scenario {
  test::checkpoint made;
  worker_thread worker{loop.get_executor(), [this] {
                         made.pass();
                         return state();
                       }};

  ~cancelled_start() { made.open(); }
  void attempt() {
    cancel(spawning([&] { return worker.start(); }), [&] { return made.arrived() > 0; });
  }
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

struct stream_cancelled_next : stream_scenario {
  void attempt() {
    auto chunks = start_silent();
    cancel([&](auto handler) { chunks.async_next(std::move(handler)); }, [&] { return running > 0; });
  }

  /// A stream on which nothing comes.
  roster::stream<std::string> start_silent() {
    const auto produce_nothing = [this](state&, roster::sink<std::string>&, roster::run_context& context) {
      obey{&running}(context);
    };
    return worker.start_stream<std::string>(roster::call_options(), produce_nothing, 1);
  }
};

struct stream_dropped_next : stream_cancelled_next {
  void attempt() {
    std::optional chunks(start_silent());
    fail(
        asio::error::operation_aborted, [&](auto handler) { chunks->async_next(std::move(handler)); }, [&] { chunks.reset(); },
        [&] { return running > 0; });
  }
};

struct stream_drop : stream_scenario {
  void attempt() {
    { const auto chunks = worker.start_stream<std::string>(roster::call_options(), produce, 1); }
    run(worker.run(third));  // behind it
  }
};

}  // namespace

TEST_CASE("A pool or a worker whose construction runs out of memory leaves nothing behind") {
  check<construction<worker_thread, make_state>>("worker_thread", allowed::nothing);
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
  check<worker_run_options>("run and run_detachable, with options", allowed::both);
  check<worker_async_run>("async_run", allowed::escape);
  check<worker_stop>("stop", allowed::escape);
}

TEST_CASE("A worker's calls never leak and never hang, whichever allocation of any thread fails") {
  check<worker_first_run>("run, first, all threads", allowed::both, where::all_threads);
  check<worker_run>("run, started, all threads", allowed::both, where::all_threads);
}

TEST_CASE("A cancelled call of a pool or a worker leaves no trace, whichever allocation fails") {
  check<cancelled_wait<roster::blocking_pool>>("pool, waits", allowed::termination);
  check<cancelled_run<roster::blocking_pool>>("pool, runs", allowed::nothing);
  check<cancelled_detached_run<roster::blocking_pool>>("pool, runs detached", allowed::both);
  check<cancelled_stop<roster::blocking_pool>>("pool, stop", allowed::both);
  check<cancelled_wait<worker_thread>>("worker, waits", allowed::both);
  check<cancelled_run<worker_thread>>("worker, runs", allowed::both);
  check<cancelled_detached_run<worker_thread>>("worker, runs detached", allowed::both);
  check<cancelled_stop<worker_thread>>("worker, stop", allowed::both);
  check<cancelled_start>("worker, start", allowed::both);
}

TEST_CASE("A call that waits for a pool or a worker that is destroyed is told, whichever allocation fails") {
  check<destroyed_owner<roster::blocking_pool>>("blocking_pool", allowed::termination);
  check<destroyed_owner<worker_thread>>("worker_thread", allowed::both);
}

TEST_CASE("A stream never leaks and never hangs, whichever allocation fails") {
  check<stream_next>("next", allowed::both);
  check<stream_next>("next, all threads", allowed::both, where::all_threads);
  check<stream_async_next>("async_next", allowed::both);
  check<stream_cancelled_next>("a cancelled async_next", allowed::both);
  check<stream_dropped_next>("a stream dropped while async_next waits", allowed::both);
  check<stream_drop>("a dropped stream", allowed::both);
}
