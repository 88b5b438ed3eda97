#include <roster/sync/shared_mutex.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/sync/lock_request.hpp"

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/post.hpp>

#include <deque>
#include <memory>
#include <optional>
#include <thread>

namespace asio = boost::asio;
using roster::async_shared_mutex;
using test::drain;
using test::read_request;
using test::write_request;

namespace {

asio::awaitable<int> lock_then_await(async_shared_mutex& mutex, int& held) {
  const auto guard = co_await mutex.lock();
  held += guard.owns_lock();
  co_await asio::post(asio::use_awaitable);
  co_return 1;
}

asio::awaitable<void> wait_then_lock(test::gate& gate, async_shared_mutex& mutex, int& held) {
  co_await wait_until_cancelled(gate);
  const auto guard = co_await mutex.lock();
  held += guard.owns_lock();
}

asio::awaitable<int> lock_with_any_cancellation(async_shared_mutex& mutex, int& held) {
  co_await asio::this_coro::reset_cancellation_state(asio::enable_total_cancellation());
  const auto guard = co_await mutex.lock();
  held += guard.owns_lock();
  co_return 1;
}

}  // namespace

TEST_CASE("cancelling a queued writer releases the readers behind it while another reader holds", "[lock][b1]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock_shared();
  write_request writer{mutex};
  drain(context);
  read_request one{mutex}, two{mutex};
  drain(context);
  CHECK(one.waits());
  writer.cancel();
  drain(context);
  CHECK(writer.aborted());
  CHECK(one.holds());
  CHECK(two.holds());
  CHECK(mutex.try_lock_shared());
}

TEST_CASE("cancelling a waiter in the middle keeps the order of the others", "[lock][b1]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  std::deque<write_request> writers;
  for (int i = 0; i < 5; ++i)
    writers.emplace_back(mutex);
  drain(context);
  writers[2].cancel();
  writers[0].cancel();
  drain(context);
  CHECK(writers[2].aborted());
  CHECK(writers[0].aborted());
  holder.reset();
  for (const std::size_t i : {1U, 3U, 4U}) {
    drain(context);
    REQUIRE(writers[i].holds());
    writers[i].release();
  }
  drain(context);
  CHECK(mutex.try_lock());
}

TEST_CASE("a cancellation that races with the grant has one outcome, and the lock goes on to the next", "[lock][b1]") {
  const bool cancel_first = GENERATE(false, true);
  const auto steps_between = GENERATE(range(std::size_t{0}, std::size_t{6}));
  const bool next_reads = GENERATE(false, true);
  const bool handed = GENERATE(false, true);
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  write_request raced{mutex};
  drain(context);
  if (handed) test::pass_head(context, mutex, holder);
  std::optional<read_request> reader;
  std::optional<write_request> writer;
  if (next_reads)
    reader.emplace(mutex);
  else
    writer.emplace(mutex);
  drain(context);
  if (cancel_first)
    raced.cancel();
  else
    holder.reset();
  test::step(context, steps_between);
  if (cancel_first)
    holder.reset();
  else
    raced.cancel();
  drain(context);
  CAPTURE(cancel_first, steps_between, next_reads, handed);
  REQUIRE(raced.done());
  CHECK(raced.holds() != raced.aborted());
  raced.release();
  drain(context);
  CHECK((next_reads ? reader->holds() : writer->holds()));
}

TEST_CASE("a waiter that was woken can leave before it comes, and the next one gets the lock", "[lock][b1]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  write_request first{mutex}, second{mutex};
  drain(context);
  holder.reset();
  first.cancel();
  CHECK(first.waits());  // it hears of that where it was sent
  drain(context);
  CHECK(first.aborted());
  CHECK(second.holds());
}

TEST_CASE("a waiter on its way does not hold the lock, whoever leaves the queue behind it", "[lock][b1]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  write_request woken{mutex}, behind{mutex};
  drain(context);
  holder.reset();
  behind.cancel();
  CHECK(mutex.try_lock());
  drain(context);
  CHECK(behind.aborted());
  CHECK(woken.holds());
}

TEST_CASE("cancelling a waiter while a writer holds the lock leaves the gate open", "[lock][b1]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  write_request first{mutex}, second{mutex};
  drain(context);
  second.cancel();
  drain(context);
  holder.reset();
  CHECK(mutex.try_lock());
  drain(context);
  CHECK(first.holds());
}

TEST_CASE("a cancellation right after the call, before its executor ran anything, removes the waiter there and then",
          "[lock][b1]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  write_request early{mutex}, next{mutex};
  early.cancel();
  CHECK(early.waits());  // told by its executor
  holder.reset();        // which hands the lock to the next one
  drain(context);
  CHECK(early.aborted());
  CHECK(next.holds());
}

TEST_CASE("the last waiter's cancellation leaves the lock as it was", "[lock][b1]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock_shared();
  write_request writer{mutex};
  drain(context);
  writer.cancel();
  drain(context);
  CHECK(mutex.try_lock_shared());
  holder.reset();
  drain(context);
  CHECK(mutex.try_lock());
}

TEST_CASE("cancelling twice, or after completion, does nothing", "[lock][b6]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  write_request twice{mutex}, late{mutex};
  drain(context);
  twice.cancel();
  twice.cancel();
  drain(context);
  twice.cancel();
  drain(context);
  CHECK(twice.aborted());
  holder.reset();
  drain(context);
  late.cancel();
  drain(context);
  CHECK(late.holds());
  CHECK_FALSE(mutex.try_lock());
}

TEST_CASE("cancelling an operation that took a free lock does nothing", "[lock][b6]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  write_request immediate{mutex};
  immediate.cancel();
  drain(context);
  CHECK(immediate.holds());
}

TEST_CASE("cancelling after the lock died does nothing", "[lock][b6]") {
  asio::io_context context;
  std::optional<async_shared_mutex> mutex{context};
  auto holder = mutex->try_lock();
  write_request before{*mutex}, after{*mutex};
  drain(context);
  mutex.reset();
  before.cancel();
  drain(context);
  after.cancel();
  drain(context);
  CHECK(before.aborted());
  CHECK(after.aborted());
  holder.reset();
}

TEST_CASE("cancelling after the context died does nothing", "[lock][b5][b6]") {
  asio::io_context other;
  std::optional<asio::io_context> context{std::in_place};
  async_shared_mutex mutex{*context};
  auto holder = mutex.try_lock();
  write_request dropped{mutex}, elsewhere{mutex, other.get_executor()};
  drain(*context);
  context.reset();
  dropped.cancel();
  elsewhere.cancel();
  drain(other);
  CHECK(dropped.dropped());
  CHECK(elsewhere.aborted());
}

TEST_CASE("cancelling on a thread of the lock's context does not complete inside the call", "[lock][b1][b6]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  write_request waiting{mutex};
  drain(context);
  int calls_inside = -1;
  asio::post(context, [&] {
    waiting.cancel();
    calls_inside = waiting.calls();
  });
  drain(context);
  CHECK(calls_inside == 0);
  CHECK(waiting.aborted());
}

TEST_CASE("a waiting coroutine can be cancelled from another thread", "[lock][b6]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  int held = 0;
  auto task = test::spawn(context, lock_then_await(mutex, held));
  drain(context);
  std::thread([&] {
    task.cancel();
    task.cancel();
  }).join();
  drain(context);
  CHECK(task.aborted());
  CHECK(held == 0);
  holder.reset();
  drain(context);
  CHECK(mutex.try_lock());
}

TEST_CASE("terminal, partial and total cancellation all remove a waiter, and none does nothing", "[lock][b6]") {
  const auto type =
      GENERATE(asio::cancellation_type::terminal, asio::cancellation_type::partial, asio::cancellation_type::total);
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  read_request waiting{mutex};
  drain(context);
  waiting.cancel(asio::cancellation_type::none);
  drain(context);
  CHECK(waiting.waits());
  waiting.cancel(type);
  drain(context);
  CHECK(waiting.aborted());
}

TEST_CASE("a coroutine honours terminal cancellation only, unless it asked for more", "[lock][b6]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  int held = 0;
  auto plain = test::spawn(context, lock_then_await(mutex, held));
  auto asking = test::spawn(context, lock_with_any_cancellation(mutex, held));
  drain(context);
  plain.cancel(asio::cancellation_type::total);
  asking.cancel(asio::cancellation_type::total);
  drain(context);
  CHECK_FALSE(plain.done());
  CHECK(asking.aborted());
  holder.reset();
  drain(context);
  CHECK(plain.succeeded());
  CHECK(held == 1);
}

TEST_CASE("a coroutine cancelled between grant and resumption gets the lock once and gives it back", "[lock][b1]") {
  const auto steps = GENERATE(range(std::size_t{0}, std::size_t{8}));
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  int held = 0;
  auto raced = test::spawn(context, lock_then_await(mutex, held));
  drain(context);
  write_request next{mutex};
  drain(context);
  holder.reset();
  test::step(context, steps);
  raced.cancel();
  drain(context);
  CAPTURE(steps, held);
  CHECK(raced.done());
  CHECK(held <= 1);
  CHECK(next.holds());
}

TEST_CASE("a coroutine that was cancelled before throws even where the lock is free", "[lock][b6]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  test::gate gate{context};
  int held = 0;
  auto task = test::spawn(context, wait_then_lock(gate, mutex, held));
  drain(context);
  task.cancel();
  drain(context);
  CHECK(task.aborted());
  CHECK(held == 0);
  CHECK(mutex.try_lock());
}

TEST_CASE("cancelling every waiter at every point leaves a free lock", "[lock][b1]") {
  const auto cancelled = GENERATE(range(std::size_t{0}, std::size_t{4}));
  const auto after = GENERATE(range(std::size_t{0}, std::size_t{12}));
  asio::io_context context;
  async_shared_mutex mutex{context};
  int held = 0;
  std::optional<async_shared_mutex::unique_guard> holder = mutex.try_lock();
  std::deque<test::task<int>> tasks;
  for (int i = 0; i < 4; ++i)
    tasks.push_back(test::spawn(context, lock_then_await(mutex, held)));
  test::step(context, after);
  holder.reset();
  tasks[cancelled].cancel();
  drain(context);
  CAPTURE(cancelled, after);
  for (const auto& task : tasks)
    CHECK(task.done());
  CHECK(held >= 3);
  CHECK(mutex.try_lock());
}

TEST_CASE("a handler that its executor drops hands the lock on, from within the grant", "[lock][b1][b5]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  int calls = 0;
  const test::dropping_executor dropping{&context};
  auto writes = [&](roster::error_code, async_shared_mutex::unique_guard) { ++calls; };
  auto reads = [&](roster::error_code, async_shared_mutex::shared_guard) { ++calls; };
  mutex.async_lock(asio::bind_executor(dropping, writes));
  mutex.async_lock_shared(asio::bind_executor(dropping, reads));
  mutex.async_lock(asio::bind_executor(dropping, writes));
  write_request next{mutex};
  read_request last{mutex};
  drain(context);
  holder.reset();
  drain(context);
  CHECK(calls == 0);
  REQUIRE(next.holds());
  next.release();
  drain(context);
  CHECK(last.holds());
}
