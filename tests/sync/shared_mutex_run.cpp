#include <roster/sync/shared_mutex.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/sync/lock_request.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/use_future.hpp>

#include <deque>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

namespace asio = boost::asio;
using roster::async_shared_mutex;
using test::drain;
using test::read_request;
using test::write_request;

namespace {

asio::awaitable<std::string> describe_holders(async_shared_mutex& mutex, bool shared) {
  const auto holders = [&mutex]() -> std::string {
    if (mutex.try_lock()) return "nobody";
    return mutex.try_lock_shared() ? "readers" : "a writer";
  };
  if (shared) co_return co_await mutex.run_shared(holders);
  co_return co_await mutex.run(holders);
}

/// One `async_run` with a plain callback.
class section_request {
 public:
  template <typename F>
  section_request(async_shared_mutex& mutex, const asio::any_io_executor& executor, F function) {
    const auto counted = [state = state_, function] {
      ++state->runs;
      function();
    };
    mutex.async_run(counted,
                    asio::bind_cancellation_slot(state_->signal.slot(),
                                                 asio::bind_executor(executor, [state = state_](std::exception_ptr failure) {
                                                   ++state->completions;
                                                   state->failure = std::move(failure);
                                                 })));
  }

  int runs() const { return state_->runs; }
  int completions() const { return state_->completions; }
  const std::exception_ptr& failure() const { return state_->failure; }
  roster::error_code code() const { return test::code_of(state_->failure); }
  bool dropped() const { return state_.use_count() == 1; }
  void cancel() { state_->signal.emit(asio::cancellation_type::terminal); }

 private:
  struct state {
    asio::cancellation_signal signal;
    int runs = 0;
    int completions = 0;
    std::exception_ptr failure;
  };

  std::shared_ptr<state> state_ = std::make_shared<state>();
};

const auto nothing = [] {};

/// A result whose moves throw once `moves` are over.
struct fragile {
  fragile() = default;
  explicit fragile(int moves) : left(moves) {}
  fragile(fragile&& other) : left(other.left - 1) {
    if (left < 0) throw std::runtime_error("moved too often");
  }
  int left = 100;
};

}  // namespace

TEST_CASE("run calls its function under exclusive, run_shared under shared ownership", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  const bool held = GENERATE(false, true);
  auto holder = held ? mutex.try_lock() : std::nullopt;
  auto exclusive = test::spawn(context, describe_holders(mutex, false));
  drain(context);
  CHECK(exclusive.done() == !held);
  holder.reset();
  drain(context);
  CHECK(exclusive.value() == "a writer");

  if (held) holder = mutex.try_lock();
  auto shared = test::spawn(context, describe_holders(mutex, true));
  drain(context);
  CHECK(shared.done() == !held);
  holder.reset();
  drain(context);
  CHECK(shared.value() == "readers");
  CHECK(mutex.try_lock());
}

TEST_CASE("what a function throws under a lock reaches its caller, and the lock is free", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  const bool held = GENERATE(false, true);
  auto holder = held ? mutex.try_lock() : std::nullopt;
  const auto fails = [] { throw std::runtime_error("under the lock"); };
  auto coroutine = test::spawn(context, mutex.run(fails));
  drain(context);
  section_request callback(mutex, context.get_executor(), fails);
  drain(context);
  holder.reset();
  drain(context);
  CHECK_THROWS_WITH(std::rethrow_exception(coroutine.failure()), "under the lock");
  CHECK(callback.completions() == 1);
  CHECK_THROWS_WITH(std::rethrow_exception(callback.failure()), "under the lock");
  CHECK(mutex.try_lock());
}

TEST_CASE("try_run calls its function here and now, or not at all", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  int runs = 0;
  const auto count = [&] { ++runs; };
  const auto expect_writer = [&] {
    ++runs;
    CHECK_FALSE(mutex.try_lock_shared());
  };
  const auto expect_reader = [&] {
    ++runs;
    CHECK(mutex.try_lock_shared());
    CHECK_FALSE(mutex.try_lock());
  };
  CHECK(mutex.try_run(expect_writer));
  CHECK(mutex.try_run_shared(expect_reader));
  CHECK(runs == 2);
  {
    const auto reader = mutex.try_lock_shared();
    CHECK(mutex.try_run_shared(count));
    CHECK_FALSE(mutex.try_run(count));
  }
  {
    const auto writer = mutex.try_lock();
    CHECK_FALSE(mutex.try_run_shared(count));
    CHECK_FALSE(mutex.try_run(count));
  }
  CHECK(runs == 3);
}

TEST_CASE("try_run takes a function that cannot be copied, and passes on what it throws", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto owned = std::make_unique<int>(1);
  CHECK_THROWS_WITH(mutex.try_run([owned = std::move(owned)] { throw std::runtime_error("under the lock"); }),
                    "under the lock");
  CHECK(mutex.try_lock());
}

TEST_CASE("whoever waits behind try_run is woken when it is done", "[lock][b2]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  std::optional<write_request> writer;
  CHECK(mutex.try_run([&] { writer.emplace(mutex); }));
  drain(context);
  CHECK(writer->holds());
}

TEST_CASE("a function under a lock is called by whoever lets it in, though its caller's loop stands still", "[lock][b2]") {
  asio::io_context context;
  asio::io_context standing;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  std::thread::id caller;
  section_request section(mutex, standing.get_executor(), [&] { caller = std::this_thread::get_id(); });
  write_request behind{mutex};
  drain(context);
  std::thread([&] { holder.reset(); }).join();
  drain(context);
  CHECK(section.runs() == 1);
  CHECK(caller != std::thread::id());
  CHECK(caller != std::this_thread::get_id());
  CHECK(behind.holds());
  CHECK(section.completions() == 0);  // it hears of that at home
  drain(standing);
  CHECK(section.completions() == 1);
}

TEST_CASE("a function under a lock that is free is called once, at once, and its caller hears of it later", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  section_request section(mutex, context.get_executor(), nothing);
  CHECK(section.runs() == 1);
  CHECK(section.completions() == 0);
  CHECK(mutex.try_lock());
  drain(context);
  CHECK(section.runs() == 1);
  CHECK(section.completions() == 1);
  CHECK_FALSE(section.code());
}

TEST_CASE("functions under a lock keep the order of the queue, between guards", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  std::string order;
  auto holder = mutex.try_lock();
  std::deque<section_request> sections;
  for (const char name : {'a', 'b'})
    sections.emplace_back(mutex, context.get_executor(), [&order, name] { order += name; });
  write_request between{mutex};
  for (const char name : {'c', 'd'})
    sections.emplace_back(mutex, context.get_executor(), [&order, name] { order += name; });
  drain(context);
  CHECK(order == "");
  holder.reset();
  CHECK(order == "ab");
  drain(context);
  CHECK(between.holds());
  between.release();
  CHECK(order == "abcd");
  drain(context);
  for (const auto& section : sections)
    CHECK(section.completions() == 1);
}

TEST_CASE("a function whose caller is cancelled while it waits is never called", "[lock][b1]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  section_request section(mutex, context.get_executor(), nothing);
  write_request behind{mutex};
  drain(context);
  section.cancel();
  drain(context);
  holder.reset();
  drain(context);
  CHECK(section.runs() == 0);
  CHECK(section.completions() == 1);
  CHECK(section.code() == asio::error::operation_aborted);
  CHECK(section.dropped());
  CHECK(behind.holds());
}

TEST_CASE("a cancellation that comes after a function was called changes nothing", "[lock][b1]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  section_request section(mutex, context.get_executor(), nothing);
  drain(context);
  holder.reset();
  section.cancel();
  drain(context);
  CHECK(section.runs() == 1);
  CHECK(section.completions() == 1);
  CHECK_FALSE(section.code());
}

TEST_CASE("a coroutine that was cancelled before runs nothing, though the lock is free", "[lock][b1]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  test::gate gate{context};
  int runs = 0;
  const auto count = [&runs] { ++runs; };
  auto late = test::spawn(context, [](test::gate& opens, async_shared_mutex& lock, auto function) -> asio::awaitable<void> {
    co_await wait_until_cancelled(opens);
    co_await lock.run(function);
  }(gate, mutex, count));
  drain(context);
  late.cancel();
  drain(context);
  CHECK(late.aborted());
  CHECK(runs == 0);
}

TEST_CASE("a function that waits for a lock which is destroyed is never called, and its caller is told", "[lock][b5]") {
  asio::io_context context;
  std::optional<async_shared_mutex> mutex(std::in_place, context);
  const auto holder = mutex->try_lock();
  section_request section(*mutex, context.get_executor(), nothing);
  drain(context);
  mutex.reset();
  drain(context);
  CHECK(section.runs() == 0);
  CHECK(section.completions() == 1);
  CHECK(section.code() == asio::error::operation_aborted);
}

TEST_CASE("a function is destroyed with its handler when the caller's context is", "[lock][b5]") {
  asio::io_context context;
  auto standing = std::make_unique<asio::io_context>();
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  section_request section(mutex, standing->get_executor(), nothing);
  holder.reset();
  CHECK(section.runs() == 1);
  CHECK_FALSE(section.dropped());
  standing.reset();
  CHECK(section.dropped());
  CHECK(section.completions() == 0);
  CHECK(mutex.try_lock());
}

TEST_CASE("run and the tokens of async_run bring a result back", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  const auto seven = [] { return 7; };
  auto coroutine = test::spawn(context, mutex.run_shared(seven));
  auto holder = mutex.try_lock();
  auto future = mutex.async_run(seven, asio::use_future);
  drain(context);
  holder.reset();
  drain(context);
  CHECK(coroutine.value() == 7);
  CHECK(future.get() == 7);
}

TEST_CASE("a result whose move throws where nobody had to wait is an error or an exception, and the lock is free", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  for (int moves = 0; moves < 20; ++moves) {
    int completions = 0;
    const auto make = [moves] { return fragile(moves); };
    try {
      mutex.async_run(make, [&](const std::exception_ptr&, const fragile&) { ++completions; });
      drain(context);
    } catch (const std::runtime_error&) {
      // on its way to the executor
    }
    CHECK(completions <= 1);
    CHECK((completions == 1 || moves < 10));
    CHECK(mutex.try_lock());
  }
}
