#include <roster/sync/shared_mutex.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/sync/lock_request.hpp"

#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/system_executor.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/version.hpp>
#if BOOST_ASIO_VERSION >= 102700
#include <boost/asio/bind_immediate_executor.hpp>
#endif

#include <deque>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace asio = boost::asio;
using roster::async_shared_mutex;
using roster::error_code;
using test::drain;
using test::read_request;
using test::write_request;

namespace {

asio::awaitable<void> lock_often(async_shared_mutex& mutex, int times) {
  for (int i = 0; i < times; ++i) {
    const auto writing = co_await mutex.lock();
    if (!writing.owns_lock()) throw std::logic_error("not locked");
  }
  for (int i = 0; i < times; ++i) {
    const auto reading = co_await mutex.lock_shared();
    const auto again = co_await mutex.lock_shared();
    if (!reading.owns_lock() || !again.owns_lock()) throw std::logic_error("not locked");
  }
}

asio::awaitable<void> throw_while_holding(async_shared_mutex& mutex) {
  const auto guard = co_await mutex.lock();
  throw std::runtime_error("while holding");
}

asio::awaitable<void> write_name(async_shared_mutex& mutex, std::string& order, char name) {
  const auto guard = co_await mutex.lock();
  order += name;
  co_await asio::post(asio::use_awaitable);
}

asio::awaitable<void> read_name(async_shared_mutex& mutex, std::string& order, char name) {
  const auto guard = co_await mutex.lock_shared();
  order += name;
  co_await asio::post(asio::use_awaitable);
}

}  // namespace

TEST_CASE("a coroutine takes a free lock without suspending", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto task = test::spawn(context, lock_often(mutex, 1000));
  bool others_ran = false;
  test::step(context);
  asio::post(context, [&] { others_ran = true; });
  CHECK_FALSE(others_ran);
  CHECK(drain(context) < 10);
  CHECK(task.succeeded());
}

TEST_CASE("a token form never completes inside the call that started it", "[lock][b3]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  int calls_inside = -1;
  asio::post(context, [&] {
    write_request free{mutex};
    read_request taken{mutex};
    calls_inside = free.calls() + taken.calls();
  });
  drain(context);
  CHECK(calls_inside == 0);
  CHECK(mutex.try_lock());
}

TEST_CASE("readers share the lock, writers do not", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  read_request one{mutex}, two{mutex};
  drain(context);
  CHECK(one.holds());
  CHECK(two.holds());
  CHECK_FALSE(mutex.try_lock());
  one.release();
  CHECK_FALSE(mutex.try_lock());
  two.release();
  const auto writer = mutex.try_lock();
  REQUIRE(writer);
  CHECK_FALSE(mutex.try_lock());
  CHECK_FALSE(mutex.try_lock_shared());
}

TEST_CASE("a reader behind a queued writer waits, and try_lock_shared fails", "[lock][b2]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock_shared();
  write_request writer{mutex};
  drain(context);
  read_request reader{mutex};
  drain(context);
  CHECK(writer.waits());
  CHECK(reader.waits());
  CHECK_FALSE(mutex.try_lock_shared());
  holder.reset();
  drain(context);
  CHECK(writer.holds());
  CHECK(reader.waits());
  writer.release();
  drain(context);
  CHECK(reader.holds());
  CHECK(mutex.try_lock_shared());
}

TEST_CASE("readers that queued together are granted together", "[lock][b2]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  std::deque<read_request> readers;
  for (int i = 0; i < 5; ++i)
    readers.emplace_back(mutex);
  write_request writer{mutex};
  read_request behind{mutex};
  drain(context);
  holder.reset();
  drain(context);
  for (const auto& reader : readers)
    CHECK(reader.holds());
  CHECK(writer.waits());
  CHECK(behind.waits());
  for (auto& reader : readers) {
    CHECK(writer.waits());
    reader.release();
    drain(context);
  }
  CHECK(writer.holds());
}

TEST_CASE("waiters are served in the order of their arrival", "[lock][b2]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  std::string order;
  std::vector<test::task<void>> tasks;
  for (const char name : std::string("WwrRWrw")) {
    const bool writes = name == 'W' || name == 'w';
    tasks.push_back(test::spawn(context, writes ? write_name(mutex, order, name) : read_name(mutex, order, name)));
    drain(context);
  }
  holder.reset();
  drain(context);
  CHECK(order == "WwrRWrw");
  for (const auto& task : tasks)
    CHECK(task.succeeded());
}

TEST_CASE("while readers hold the lock nobody passes a writer at the head of the queue", "[lock][b2]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock_shared();
  write_request writer{mutex};
  CHECK_FALSE(mutex.try_lock_shared());
  holder.reset();
  CHECK_FALSE(mutex.try_lock_shared());
  CHECK_FALSE(mutex.try_lock());
  drain(context);
  CHECK(writer.holds());
}

TEST_CASE("a barging try_lock loop cannot hold a queued waiter back", "[lock][b2]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto barging = mutex.try_lock();
  write_request writer{mutex};
  read_request reader{mutex};
  int rounds = 0;
  for (; rounds < 20 && writer.waits(); ++rounds) {
    barging.reset();
    barging = mutex.try_lock();
    test::step(context);
  }
  CHECK(writer.holds());
  CHECK(rounds <= 4);
  barging.reset();
  writer.release();
  drain(context);
  CHECK(reader.holds());
}

TEST_CASE("a stream of overlapping readers does not starve a writer", "[lock][b2]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  std::deque<read_request> readers;
  for (int i = 0; i < 3; ++i)
    readers.emplace_back(mutex);
  drain(context);
  write_request writer{mutex};
  drain(context);
  for (std::size_t i = 0; i < 3; ++i) {
    readers.emplace_back(mutex);
    drain(context);
    readers[i].release();
  }
  drain(context);
  CHECK(writer.holds());
  CHECK(readers.back().waits());
}

TEST_CASE("a stream of writers does not starve a reader", "[lock][b2]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  std::deque<write_request> writers;
  for (int i = 0; i < 3; ++i)
    writers.emplace_back(mutex);
  drain(context);
  read_request reader{mutex};
  int rounds = 0;
  for (; rounds < 20 && reader.waits(); ++rounds) {
    for (auto& writer : writers)
      if (writer.holds()) writer.release();
    writers.emplace_back(mutex);  // at once: it passes whoever was woken
    drain(context);
  }
  CHECK(reader.holds());
  CHECK(rounds <= 6);  // two writers stood before it, and each of the three is passed once
}

TEST_CASE("a waiter that came and found the lock taken is not passed again", "[lock][b2]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  write_request waiter{mutex};
  drain(context);
  for (int i = 0; i < 3; ++i) {  // it is on its way
    holder.reset();
    holder = mutex.try_lock();
    REQUIRE(holder);
  }
  drain(context);
  CHECK(waiter.waits());
  holder.reset();
  CHECK_FALSE(mutex.try_lock());
  CHECK_FALSE(mutex.try_lock_shared());
  drain(context);
  CHECK(waiter.holds());
}

TEST_CASE("a waiter whose executor stands still holds up those behind it, and leaves the lock to whoever comes", "[lock][b2]") {
  asio::io_context context, still;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  write_request first{mutex, still.get_executor()};
  read_request behind{mutex};
  holder.reset();
  drain(context);
  CHECK(first.waits());
  CHECK(behind.waits());
  CHECK(mutex.try_lock());
  CHECK(mutex.try_lock_shared());
  drain(context);
  CHECK(behind.waits());
  drain(still);
  CHECK(first.holds());
  first.release();
  drain(context);
  CHECK(behind.holds());
}

TEST_CASE("a waiter that was woken takes the readers behind it along", "[lock][b2]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  read_request first{mutex}, second{mutex};
  write_request writer{mutex};
  drain(context);
  holder.reset();
  test::step(context);
  CHECK(first.holds());
  CHECK_FALSE(mutex.try_lock_shared());  // the writer was found ungrantable
  drain(context);
  CHECK(second.holds());
  CHECK(writer.waits());
}

TEST_CASE("releasing a lock runs no waiter inside the release", "[lock][b3]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  // Handlers go home to a loop in one way, to all other executors in another.
  asio::any_io_executor home = context.get_executor();
  if (GENERATE(false, true)) home = asio::make_strand(context);
  auto unique = mutex.try_lock();
  write_request writer{mutex, home};
  read_request reader{mutex, home};
  drain(context);
  int calls_inside = -1;
  asio::post(context, [&] {
    unique->unlock();
    calls_inside = writer.calls();
  });
  drain(context);
  CHECK(calls_inside == 0);
  REQUIRE(writer.holds());
  asio::post(context, [&] {
    const auto downgraded = std::move(writer.guard()).downgrade();
    calls_inside = reader.calls();
  });
  drain(context);
  CHECK(calls_inside == 0);
  CHECK(reader.holds());
}

TEST_CASE("a waiter resumes on the executor that its handler is bound to", "[lock][b4]") {
  asio::io_context context, other;
  async_shared_mutex mutex{context};
  const auto strand = asio::make_strand(other);
  auto holder = mutex.try_lock();
  bool on_strand = false;
  mutex.async_lock(asio::bind_executor(
      strand, [&](error_code, async_shared_mutex::unique_guard) { on_strand = strand.running_in_this_thread(); }));
  drain(context);
  holder.reset();
  drain(context);
  CHECK_FALSE(on_strand);
  drain(other);
  CHECK(on_strand);
}

TEST_CASE("a lock tells the executor of handlers that have none, and they are called there", "[lock][b4]") {
  asio::io_context context;
  const auto strand = asio::make_strand(context);
  async_shared_mutex mutex{asio::any_io_executor(strand)};
  CHECK(mutex.get_executor() == asio::any_io_executor(strand));
  CHECK(async_shared_mutex(context).get_executor() == asio::any_io_executor(context.get_executor()));
  auto holder = mutex.try_lock();
  int on_strand = 0;
  auto count = [&](error_code, auto) { on_strand += strand.running_in_this_thread(); };
  mutex.async_lock(count);
  mutex.async_lock_shared(count);
  holder.reset();
  drain(context);
  mutex.async_lock(count);
  drain(context);
  CHECK(on_strand == 3);
}

TEST_CASE("an uncontended token form completes on the executor that its handler is bound to", "[lock][b4]") {
  asio::io_context context, other;
  async_shared_mutex mutex{context};
  write_request request{mutex, other.get_executor()};
  drain(context);
  CHECK(request.waits());
  drain(other);
  CHECK(request.holds());
}

TEST_CASE("a coroutine resumes on its own thread, wherever the lock was released", "[lock][b4]") {
  asio::thread_pool locks{1};
  asio::io_context context;
  async_shared_mutex mutex{locks};
  auto holder = mutex.try_lock();
  std::thread::id resumed_on;
  auto waiting = [](async_shared_mutex& which, std::thread::id& thread) -> asio::awaitable<void> {
    const auto guard = co_await which.lock();
    thread = std::this_thread::get_id();
  };
  auto task = test::spawn(context, waiting(mutex, resumed_on));
  drain(context);
  asio::post(locks, [held = std::move(*holder)]() mutable { held.unlock(); });
  context.restart();
  context.run();
  CHECK(task.succeeded());
  CHECK(resumed_on == std::this_thread::get_id());
}

TEST_CASE("a waiting operation is work for the executor of its handler", "[lock][b4]") {
  asio::io_context context, other;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  write_request request{mutex, other.get_executor()};
  drain(context);
  CHECK(other.poll() == 0);
  CHECK_FALSE(other.stopped());
  holder.reset();
  drain(context);
  CHECK(other.run() == 1);
  CHECK(request.holds());
}

TEST_CASE("a waiter's memory comes from its handler's allocator, and is returned before the handler runs", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  auto counts = std::make_shared<test::allocation_counts>();
  std::size_t live_in_handler = 99;
  auto handler = asio::bind_allocator(test::counting_allocator<void>(counts),
                                      [&](error_code, async_shared_mutex::unique_guard) { live_in_handler = counts->live; });
  if (GENERATE(false, true))
    mutex.async_lock(asio::bind_executor(asio::make_strand(context), std::move(handler)));
  else
    mutex.async_lock(std::move(handler));
  CHECK(counts->live > 0);
  drain(context);
  holder.reset();
  drain(context);
  CHECK(live_in_handler == 0);
  CHECK(counts->live == 0);
  CHECK(counts->total > 0);
}

TEST_CASE("a named callback passed as a token is copied, not stolen", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto calls = std::make_shared<int>(0);
  auto callback = [calls](error_code, async_shared_mutex::unique_guard) { ++*calls; };
  mutex.async_lock(callback);
  const auto& constant = callback;
  mutex.async_lock(constant);
  CHECK(calls.use_count() >= 2);
  callback({}, {});
  drain(context);
  CHECK(*calls == 3);
}

TEST_CASE("downgrading lets queued readers in and no writer between", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto unique = mutex.try_lock().value();
  read_request first{mutex};
  write_request writer{mutex};
  read_request last{mutex};
  drain(context);
  auto shared = std::move(unique).downgrade();
  CHECK(shared.owns_lock());
  CHECK_FALSE(unique.owns_lock());
  drain(context);
  CHECK(first.holds());
  CHECK(writer.waits());
  CHECK(last.waits());
  shared.unlock();
  first.release();
  drain(context);
  CHECK(writer.holds());
}

TEST_CASE("downgrading in front of a queued writer keeps the lock, and the release lets the writer in", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto unique = mutex.try_lock().value();
  write_request writer{mutex};
  drain(context);
  auto shared = std::move(unique).downgrade();
  drain(context);
  CHECK(writer.waits());
  CHECK_FALSE(mutex.try_lock_shared());
  shared.unlock();
  drain(context);
  CHECK(writer.holds());
}

TEST_CASE("downgrading with nobody waiting lets readers share, and an empty guard stays empty", "[lock]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto shared = mutex.try_lock().value().downgrade();
  CHECK(mutex.try_lock_shared());
  CHECK_FALSE(mutex.try_lock());
  CHECK_FALSE(async_shared_mutex::unique_guard().downgrade().owns_lock());
}

TEST_CASE("an exception that leaves the section releases the lock", "[lock][b7]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto task = test::spawn(context, throw_while_holding(mutex));
  drain(context);
  CHECK(task.done());
  CHECK_THROWS_WITH(std::rethrow_exception(task.failure()), "while holding");
  CHECK(mutex.try_lock());
}

TEST_CASE("the gate is open again when the queue is empty", "[lock][b2]") {
  const bool cancelled = GENERATE(false, true);
  asio::io_context context;
  async_shared_mutex mutex{context};
  for (int round = 0; round < 3; ++round) {
    auto holder = mutex.try_lock_shared();
    REQUIRE(holder);
    write_request writer{mutex};
    drain(context);
    CHECK_FALSE(mutex.try_lock_shared());
    if (cancelled)
      writer.cancel();
    else
      holder.reset();
    drain(context);
    CHECK(writer.done());
    CHECK(mutex.try_lock_shared().has_value() == cancelled);
    writer.release();
  }
  CHECK(mutex.try_lock());
}

#if BOOST_ASIO_VERSION >= 102700
TEST_CASE("an immediate executor lets a free lock complete inside the call", "[lock][b3]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  int calls = 0;
  auto count = [&](error_code, async_shared_mutex::unique_guard) { ++calls; };
  mutex.async_lock(asio::bind_immediate_executor(asio::system_executor(), count));
  CHECK(calls == 1);
}
#endif
