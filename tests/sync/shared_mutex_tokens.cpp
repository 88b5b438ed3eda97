#include <roster/sync/shared_mutex.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_future.hpp>

#include <future>
#include <optional>
#include <stdexcept>
#include <thread>
#include <tuple>
#include <variant>

namespace asio = boost::asio;
using roster::async_shared_mutex;
using roster::error_code;
using test::drain;

namespace {

using unique_guard = async_shared_mutex::unique_guard;

asio::awaitable<bool> lock_with_use_awaitable(async_shared_mutex& mutex) {
  const auto guard = co_await mutex.async_lock(asio::use_awaitable);
  co_return guard.owns_lock();
}

asio::awaitable<bool> lock_with_as_tuple(async_shared_mutex& mutex) {
  const auto result = co_await mutex.async_lock(asio::as_tuple(asio::use_awaitable));
  co_return std::get<1>(result).owns_lock() == !std::get<0>(result) && std::get<1>(result).owns_lock();
}

asio::awaitable<bool> lock_with_redirect_error(async_shared_mutex& mutex) {
  error_code code = asio::error::would_block;
  const auto guard = co_await mutex.async_lock(asio::redirect_error(asio::use_awaitable, code));
  co_return guard.owns_lock() && !code;
}

asio::awaitable<bool> lock_with_deferred(async_shared_mutex& mutex) {
  const auto guard = co_await mutex.async_lock(asio::deferred);
  co_return guard.owns_lock();
}

asio::awaitable<bool> lock_shared_with_use_awaitable(async_shared_mutex& mutex) {
  const auto guard = co_await mutex.async_lock_shared(asio::use_awaitable);
  co_return guard.owns_lock();
}

asio::awaitable<bool> lock_as_coroutine(async_shared_mutex& mutex) {
  const auto guard = co_await mutex.lock();
  co_return guard.owns_lock();
}

asio::awaitable<bool> lock_shared_as_coroutine(async_shared_mutex& mutex) {
  const auto guard = co_await mutex.lock_shared();
  co_return guard.owns_lock();
}

asio::awaitable<std::size_t> lock_or_gate(async_shared_mutex& mutex, test::gate& gate) {
  using namespace asio::experimental::awaitable_operators;
  const auto winner = co_await (mutex.lock() || gate.wait());
  co_return winner.index();
}

asio::awaitable<bool> both_shared(async_shared_mutex& mutex) {
  using namespace asio::experimental::awaitable_operators;
  const auto guards = co_await (mutex.lock_shared() && mutex.lock_shared());
  co_return std::get<0>(guards).owns_lock() && std::get<1>(guards).owns_lock();
}

asio::awaitable<error_code> aborted_as_tuple(async_shared_mutex& mutex) {
  const auto result = co_await mutex.async_lock(asio::as_tuple(asio::use_awaitable));
  co_return std::get<0>(result);
}

}  // namespace

TEST_CASE("coroutine forms and coroutine tokens get a guard, whether the lock is free or not", "[lock][tokens]") {
  const auto form = GENERATE(lock_with_use_awaitable, lock_with_as_tuple, lock_with_redirect_error, lock_with_deferred,
                             lock_shared_with_use_awaitable, lock_as_coroutine, lock_shared_as_coroutine);
  const bool contended = GENERATE(false, true);
  asio::io_context context;
  async_shared_mutex mutex{context};
  std::optional<unique_guard> holder;
  if (contended) holder = mutex.try_lock();
  auto task = test::spawn(context, form(mutex));
  drain(context);
  CHECK(task.done() == !contended);
  holder.reset();
  drain(context);
  REQUIRE(task.succeeded());
  CHECK(task.value());
  CHECK(mutex.try_lock());
}

TEST_CASE("a future receives the guard", "[lock][tokens]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  std::future<unique_guard> future = mutex.async_lock(asio::use_future);
  drain(context);
  holder.reset();
  drain(context);
  CHECK(future.get().owns_lock());
  CHECK(mutex.try_lock());
}

TEST_CASE("a future learns that the lock died", "[lock][tokens][b5]") {
  asio::io_context context;
  std::optional<async_shared_mutex> mutex{context};
  auto holder = mutex->try_lock();
  auto future = mutex->async_lock_shared(asio::use_future);
  mutex.reset();
  drain(context);
  CHECK_THROWS_AS(future.get(), boost::system::system_error);
}

TEST_CASE("a detached operation takes the lock and gives it back", "[lock][tokens]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto holder = mutex.try_lock();
  mutex.async_lock(asio::detached);
  drain(context);
  holder.reset();
  drain(context);
  CHECK(mutex.try_lock());
}

TEST_CASE("a deferred operation does nothing until it is started", "[lock][tokens]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto operation = mutex.async_lock(asio::deferred);
  drain(context);
  CHECK(mutex.try_lock());
  bool held = false;
  std::move(operation)([&](error_code, unique_guard guard) { held = guard.owns_lock(); });
  CHECK_FALSE(mutex.try_lock());
  drain(context);
  CHECK(held);
  CHECK(mutex.try_lock());
}

TEST_CASE("the loser of an or-operator leaves the queue and takes nothing with it", "[lock][tokens][b1]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  test::gate gate{context};
  auto holder = mutex.try_lock();
  auto task = test::spawn(context, lock_or_gate(mutex, gate));
  drain(context);
  SECTION("the lock loses") {
    gate.open();
    drain(context);
    REQUIRE(task.succeeded());
    CHECK(task.value() == 1);
    holder.reset();
  }
  SECTION("the lock wins") {
    holder.reset();
    drain(context);
    REQUIRE(task.succeeded());
    CHECK(task.value() == 0);
  }
  SECTION("both win") {
    holder.reset();
    gate.open();
    drain(context);
    CHECK(task.succeeded());
  }
  drain(context);
  CHECK(mutex.try_lock());
}

TEST_CASE("an and-operator holds two shared guards", "[lock][tokens]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto task = test::spawn(context, both_shared(mutex));
  drain(context);
  REQUIRE(task.succeeded());
  CHECK(task.value());
  CHECK(mutex.try_lock());
}

TEST_CASE("as_tuple receives the error of a lock that died", "[lock][tokens][b5]") {
  asio::io_context context;
  std::optional<async_shared_mutex> mutex{context};
  auto holder = mutex->try_lock();
  auto task = test::spawn(context, aborted_as_tuple(*mutex));
  drain(context);
  mutex.reset();
  drain(context);
  REQUIRE(task.succeeded());
  CHECK(task.value() == asio::error::operation_aborted);
}

TEST_CASE("coroutines with an executor type of their own have a lock of that type", "[lock][tokens]") {
  using executor_type = asio::io_context::executor_type;
  using mutex_type = roster::basic_async_shared_mutex<executor_type>;
  asio::io_context context;
  mutex_type mutex{context};
  auto holder = mutex.try_lock();
  bool held = false;
  auto waiting = [](mutex_type& which, bool& result) -> asio::awaitable<void, executor_type> {
    const auto guard = co_await which.lock();
    result = guard.owns_lock();
  };
  asio::co_spawn(context, waiting(mutex, held), asio::detached);
  auto other = [](mutex_type& which) -> asio::awaitable<bool> {
    const auto guard = co_await which.async_lock_shared(asio::use_awaitable);
    co_return guard.owns_lock();
  };
  auto task = test::spawn(context, other(mutex));  // whose executor is any
  drain(context);
  CHECK_FALSE(held);
  CHECK_FALSE(task.done());
  holder.reset();
  drain(context);
  CHECK(held);
  CHECK(task.value());
}
