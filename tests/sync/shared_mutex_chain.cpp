#include <roster/sync/semaphore.hpp>
#include <roster/sync/shared_mutex.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/strand.hpp>

#include <memory>
#include <optional>

// Built without optimization: frames are large there, and no tail call hides a recursion.

namespace asio = boost::asio;
using roster::async_semaphore;
using roster::async_shared_mutex;
using roster::error_code;
using test::drain;

namespace {

constexpr int many = 100'000;

asio::awaitable<void> hand_on(async_shared_mutex& mutex, int& served) {
  const auto guard = co_await mutex.lock();
  ++served;
}

}  // namespace

TEST_CASE("100,000 waiting callbacks handed on in a row do not grow the stack", "[lock][b3]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  int served = 0;
  for (int i = 0; i < many; ++i)
    mutex.async_lock([&](error_code, async_shared_mutex::unique_guard) { ++served; });
  drain(context);
  holder.reset();
  drain(context);
  CHECK(served == many);
  CHECK(mutex.try_lock());
}

TEST_CASE("100,000 waiting coroutines handed on in a row do not grow the stack", "[lock][b3]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  int served = 0;
  for (int i = 0; i < many; ++i)
    asio::co_spawn(context, hand_on(mutex, served), asio::detached);
  drain(context);
  holder.reset();
  drain(context);
  CHECK(served == many);
}

TEST_CASE("100,000 readers granted at once, or aborted at once, do not grow the stack", "[lock][b3][b5]") {
  asio::io_context context;
  std::optional<async_shared_mutex> mutex{context};
  auto holder = mutex->try_lock();
  int served = 0;
  for (int i = 0; i < many; ++i)
    mutex->async_lock_shared([&](error_code, async_shared_mutex::shared_guard) { ++served; });
  drain(context);
  const bool abort = GENERATE(false, true);
  if (abort)
    mutex.reset();
  else
    holder.reset();
  drain(context);
  CHECK(served == many);
}

TEST_CASE("a context dies with 100,000 waiters without growing the stack", "[lock][b3][b5]") {
  auto context = std::make_unique<asio::io_context>();
  async_shared_mutex mutex{*context};
  auto holder = mutex.try_lock();
  auto owned = std::make_shared<int>(0);
  for (int i = 0; i < many; ++i)
    mutex.async_lock([owned](error_code, async_shared_mutex::unique_guard) { ++*owned; });
  drain(*context);
  const bool granted = GENERATE(false, true);
  if (granted) holder.reset();
  context.reset();
  CHECK(owned.use_count() == 1);
  CHECK(*owned == 0);
}

TEST_CASE("100,000 waiters that an executor drops hand the lock on without growing the stack", "[lock][b3][b5]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  const test::dropping_executor dropping{&context};
  auto holder = mutex.try_lock();
  auto owned = std::make_shared<int>(0);
  for (int i = 0; i < many; ++i)
    mutex.async_lock(asio::bind_executor(dropping, [owned](error_code, async_shared_mutex::unique_guard) { ++*owned; }));
  holder.reset();
  CHECK(owned.use_count() == 1);
  CHECK(*owned == 0);
  CHECK(mutex.try_lock());
}

TEST_CASE("100,000 waiters for one permit do not grow the stack", "[semaphore][b3]") {
  asio::io_context context;
  async_semaphore semaphore{context, 1};
  auto held = semaphore.try_acquire();
  int served = 0;
  for (int i = 0; i < many; ++i)
    semaphore.async_acquire([&](error_code, async_semaphore::permit) { ++served; });
  held.reset();
  drain(context);
  CHECK(served == many);
  CHECK(semaphore.available() == 1);
}

TEST_CASE("a strand that dies with 100,000 waiters for one permit does not grow the stack", "[semaphore][b3][b5]") {
  auto context = std::make_unique<asio::io_context>();
  async_semaphore semaphore{*context, 1};
  std::optional<asio::strand<asio::io_context::executor_type>> strand{context->get_executor()};
  auto held = semaphore.try_acquire();
  auto owned = std::make_shared<int>(0);
  for (int i = 0; i < many; ++i) {
    auto handler = [owned](error_code, async_semaphore::permit) { ++*owned; };
    semaphore.async_acquire(asio::bind_executor(*strand, handler));
  }
  held.reset();
  strand.reset();
  context.reset();
  CHECK(owned.use_count() == 1);
  CHECK(*owned == 0);
}

TEST_CASE("100,000 waiters that an executor drops hand a permit on without growing the stack", "[semaphore][b3][b5]") {
  asio::io_context context;
  async_semaphore semaphore{context, 1};
  const test::dropping_executor dropping{&context};
  auto held = semaphore.try_acquire();
  auto owned = std::make_shared<int>(0);
  for (int i = 0; i < many; ++i)
    semaphore.async_acquire(asio::bind_executor(dropping, [owned](error_code, async_semaphore::permit) { ++*owned; }));
  held.reset();
  CHECK(owned.use_count() == 1);
  CHECK(*owned == 0);
  CHECK(semaphore.available() == 1);
}
