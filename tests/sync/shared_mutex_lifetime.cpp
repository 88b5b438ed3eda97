#include <roster/sync/shared_mutex.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/sync/lock_request.hpp"

#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/execution/bad_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#include <future>
#include <memory>
#include <optional>
#include <thread>

namespace asio = boost::asio;
using roster::async_shared_mutex;
using test::drain;
using test::read_request;
using test::write_request;

namespace {

asio::awaitable<async_shared_mutex::unique_guard> lock_and_return(async_shared_mutex& mutex) {
  co_return co_await mutex.lock();
}

asio::awaitable<void> lock_and_finish(async_shared_mutex& mutex, std::shared_ptr<int> owned) {
  const auto guard = co_await mutex.lock();
  ++*owned;
}

}  // namespace

TEST_CASE("a guard that was moved from owns nothing, and only the last owner unlocks", "[lock][b7]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto first = mutex.try_lock();
  REQUIRE(first);
  auto second = std::move(*first);
  CHECK_FALSE(first->owns_lock());
  CHECK(second.owns_lock());
  first.reset();
  CHECK_FALSE(mutex.try_lock());
  async_shared_mutex::unique_guard third;
  third = std::move(second);
  second.unlock();
  CHECK_FALSE(mutex.try_lock());
  third.unlock();
  CHECK(mutex.try_lock());
}

TEST_CASE("a guard survives being moved to itself, and being released twice", "[lock][b7]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto guard = mutex.try_lock().value();
  auto& alias = guard;
  guard = std::move(alias);
  CHECK(guard.owns_lock());
  guard.unlock();
  guard.unlock();
  CHECK_FALSE(guard.owns_lock());
  auto one = mutex.try_lock_shared();
  auto two = mutex.try_lock_shared();
  one->unlock();
  one->unlock();
  CHECK_FALSE(mutex.try_lock());
  two.reset();
  CHECK(mutex.try_lock());
}

TEST_CASE("assigning to a guard releases what it held", "[lock][b7]") {
  asio::io_context context;
  async_shared_mutex one{context}, two{context};
  auto guard = one.try_lock().value();
  guard = two.try_lock().value();
  CHECK(one.try_lock());
  CHECK_FALSE(two.try_lock());
}

TEST_CASE("a guard may outlive the coroutine that took it", "[lock][b7]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto task = test::spawn(context, lock_and_return(mutex));
  drain(context);
  REQUIRE(task.succeeded());
  CHECK_FALSE(mutex.try_lock());
  write_request waiting{mutex};
  drain(context);
  CHECK(waiting.waits());
  task.value().unlock();
  drain(context);
  CHECK(waiting.holds());
}

TEST_CASE("a guard released on a foreign thread wakes the waiter on its own executor", "[lock][b4][b7]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto guard = mutex.try_lock().value();
  write_request waiting{mutex};
  drain(context);
  std::thread([held = std::move(guard)]() mutable { held.unlock(); }).join();
  CHECK(waiting.waits());
  drain(context);
  CHECK(waiting.holds());
}

TEST_CASE("a guard released on another context, or by a handler of the lock's own, hands the lock on", "[lock][b7]") {
  asio::io_context context, other;
  async_shared_mutex mutex{context};
  auto guard = mutex.try_lock().value();
  write_request first{mutex}, second{mutex};
  drain(context);
  asio::post(other, [held = std::move(guard)]() mutable { held.unlock(); });
  drain(other);
  drain(context);
  REQUIRE(first.holds());
  bool called_inside = false;
  asio::post(context, [&] {
    first.release();
    called_inside = second.done();
  });
  drain(context);
  CHECK_FALSE(called_inside);
  CHECK(second.holds());
}

TEST_CASE("destroying the lock aborts its waiters and leaves the guards alone", "[lock][b5][b7]") {
  asio::io_context context;
  auto mutex = std::make_unique<async_shared_mutex>(context);
  auto guard = mutex->try_lock_shared().value();
  write_request arrived{*mutex};
  drain(context);
  read_request announced{*mutex};
  mutex.reset();
  CHECK(guard.owns_lock());
  drain(context);
  CHECK(arrived.aborted());
  CHECK(announced.aborted());
  guard.unlock();
  drain(context);
}

TEST_CASE("a lock granted before the lock object died still arrives", "[lock][b5]") {
  asio::io_context context;
  auto mutex = std::make_unique<async_shared_mutex>(context);
  write_request granted{*mutex};
  mutex.reset();
  drain(context);
  CHECK(granted.holds());
  granted.release();
}

TEST_CASE("a waiter that was woken when the lock object died is told so", "[lock][b5]") {
  asio::io_context context;
  std::optional<async_shared_mutex> mutex(context);
  auto guard = mutex->try_lock();
  write_request woken{*mutex};
  drain(context);
  guard.reset();
  mutex.reset();
  CHECK(woken.waits());
  drain(context);
  CHECK(woken.aborted());
}

TEST_CASE("a lock may be destroyed by the handler it called", "[lock][b5]") {
  asio::io_context context;
  auto mutex = std::make_unique<async_shared_mutex>(context);
  auto guard = mutex->try_lock().value();
  bool destroyed = false;
  mutex->async_lock([&](roster::error_code, async_shared_mutex::unique_guard) {
    mutex.reset();
    destroyed = true;
  });
  write_request behind{*mutex};
  drain(context);
  guard.unlock();
  drain(context);
  CHECK(destroyed);
  CHECK(behind.done());
}

TEST_CASE("an operation that is started after its lock died is harmless", "[lock][b5]") {
  asio::io_context context;
  auto mutex = std::make_unique<async_shared_mutex>(context);
  auto packaged = mutex->async_lock(asio::deferred);
  auto coroutine = mutex->lock_shared();
  async_shared_mutex::unique_guard guard;
  if (GENERATE(false, true)) guard = mutex->try_lock().value();
  mutex.reset();
  int calls = 0;
  std::move(packaged)([&](roster::error_code, async_shared_mutex::unique_guard) { ++calls; });
  drain(context);
  auto task = test::spawn(context, std::move(coroutine));
  drain(context);
  CHECK(calls == 1);
  CHECK(task.done());
  if (guard.owns_lock()) CHECK(task.aborted());
}

TEST_CASE("destroying the context destroys its handlers uncalled, and a later release is harmless", "[lock][b5]") {
  auto context = std::make_unique<asio::io_context>();
  async_shared_mutex mutex{*context};
  auto guard = mutex.try_lock().value();
  auto owned = std::make_shared<int>(0);
  write_request arrived{mutex};
  asio::co_spawn(*context, lock_and_finish(mutex, owned), asio::detached);
  drain(*context);
  read_request announced{mutex};
  context.reset();
  CHECK(arrived.dropped());
  CHECK(announced.dropped());
  CHECK(owned.use_count() == 1);
  CHECK(*owned == 0);
  guard.unlock();
  CHECK(mutex.try_lock());
}

TEST_CASE("guards and lock may outlive a context that was never used for waiting", "[lock][b5]") {
  auto context = std::make_unique<asio::io_context>();
  std::optional<async_shared_mutex> mutex{*context};
  auto unique = mutex->try_lock();
  context.reset();
  unique.reset();
  auto shared = mutex->try_lock_shared();
  CHECK(shared);
  mutex.reset();
}

TEST_CASE("when its context has died with a waiter behind readers a lock can be had again", "[lock][b5]") {
  auto context = std::make_unique<asio::io_context>();
  async_shared_mutex mutex{*context};
  auto reader = mutex.try_lock_shared();
  write_request writer{mutex};
  drain(*context);
  CHECK_FALSE(mutex.try_lock_shared());
  context.reset();
  CHECK(writer.dropped());
  CHECK(mutex.try_lock_shared());
  reader.reset();
  CHECK(mutex.try_lock());
}

TEST_CASE("a lock on a strand may outlive the context, and so may its guards", "[lock][b4][b5]") {
  auto context = std::make_unique<asio::io_context>();
  std::optional<async_shared_mutex> mutex{asio::make_strand(*context)};
  auto guard = mutex->try_lock();
  write_request waiting{*mutex};
  drain(*context);
  context.reset();
  CHECK(waiting.dropped());
  mutex.reset();
  guard.reset();
}

TEST_CASE("a waiter on another context is told when the lock's context dies", "[lock][b4][b5]") {
  asio::io_context other;
  auto context = std::make_unique<asio::io_context>();
  async_shared_mutex mutex{*context};
  auto guard = mutex.try_lock();
  write_request arrived{mutex, other.get_executor()};
  drain(*context);
  read_request announced{mutex, other.get_executor()};
  auto task = test::spawn(other, lock_and_return(mutex));
  drain(other);
  context.reset();
  CHECK(arrived.waits());
  drain(other);
  CHECK(arrived.aborted());
  CHECK(announced.aborted());
  CHECK(task.aborted());
  guard.reset();
  auto late = mutex.try_lock();
  write_request refused{mutex, other.get_executor()};
  write_request cancelled{mutex, other.get_executor()};
  cancelled.cancel();
  drain(other);
  CHECK(refused.aborted());
  CHECK(cancelled.aborted());
}

TEST_CASE("a guard that was granted but not delivered is released with its context", "[lock][b5]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto guard = mutex.try_lock();
  auto other = std::make_unique<asio::io_context>();
  write_request undelivered{mutex, other->get_executor()};
  write_request next{mutex};
  drain(context);
  if (GENERATE(false, true)) test::pass_head(*other, mutex, guard);
  guard.reset();
  drain(context);
  REQUIRE(undelivered.waits());
  other.reset();
  CHECK(undelivered.dropped());
  drain(context);
  CHECK(next.holds());
}

TEST_CASE("a waiter whose context dies while it is on its way leaves the queue", "[lock][b5]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto guard = mutex.try_lock();
  auto other = std::make_unique<asio::io_context>();
  write_request undelivered{mutex, other->get_executor()};
  write_request next{mutex};
  drain(context);
  guard.reset();
  guard = mutex.try_lock();
  other.reset();
  CHECK(undelivered.dropped());
  guard.reset();
  drain(context);
  CHECK(next.holds());
}

TEST_CASE("the memory of a waiter is returned before its handler, which may own it, is destroyed uncalled", "[lock][b5]") {
  test::handler_memory memory;
  auto context = std::make_unique<asio::io_context>();
  std::optional<async_shared_mutex> mutex(*context);
  auto guard = mutex->try_lock();
  mutex->async_lock(memory.handler());
  drain(*context);
  SECTION("it waits") {}
  SECTION("it was woken") {
    guard.reset();
  }
  SECTION("it was handed the lock") {
    test::pass_head(*context, *mutex, guard);
    guard.reset();
  }
  SECTION("it was woken, and the lock died") {
    guard.reset();
    mutex.reset();
  }
  REQUIRE(memory.live() > 0);
  CHECK_FALSE(memory.live_at_the_end);
  context.reset();
  CHECK(memory.live_at_the_end == std::size_t{0});
}

TEST_CASE("a context may be destroyed with a grant, a hand-over or a cancellation under way", "[lock][b5]") {
  auto context = std::make_unique<asio::io_context>();
  async_shared_mutex mutex{*context};
  auto guard = mutex.try_lock();
  write_request first{mutex}, second{mutex}, third{mutex};
  drain(*context);
  SECTION("the first waiter was woken, and does not know it") {
    guard.reset();
  }
  SECTION("the first waiter was handed the lock, and does not know it") {
    test::pass_head(*context, mutex, guard);
    guard.reset();
  }
  SECTION("the aborted handler is not yet called") {
    first.cancel();
  }
  SECTION("the lock died, and its waiter does not know it") {
    std::optional<async_shared_mutex> dying{*context};
    write_request holder{*dying}, waiter{*dying};
    dying.reset();
    context.reset();
    CHECK(waiter.dropped());
  }
  context.reset();
  CHECK(first.dropped());
  CHECK(second.dropped());
  CHECK(third.dropped());
  guard.reset();
  CHECK(mutex.try_lock());
}

TEST_CASE("handlers on a strand of a dying context are destroyed, whichever of strand and lock came first", "[lock][b4][b5]") {
  auto context = std::make_unique<asio::io_context>();
  const bool strand_first = GENERATE(true, false);
  std::optional<asio::strand<asio::any_io_executor>> strand;
  if (strand_first) strand.emplace(context->get_executor());
  std::optional<async_shared_mutex> mutex{*context};
  if (!strand_first) strand.emplace(context->get_executor());
  auto guard = mutex->try_lock();
  write_request first{*mutex, *strand}, second{*mutex, *strand};
  drain(*context);
  if (GENERATE(false, true)) test::pass_head(*context, *mutex, guard);
  if (GENERATE(true, false)) guard.reset();
  strand.reset();
  context.reset();
  CHECK(first.dropped());
  CHECK(second.dropped());
}

TEST_CASE("a handler that owns the lock it waits for does not keep it alive beyond the context", "[lock][b5]") {
  auto context = std::make_unique<asio::io_context>();
  auto mutex = std::make_shared<async_shared_mutex>(*context);
  const std::weak_ptr<async_shared_mutex> watched = mutex;
  auto guard = std::make_shared<std::optional<async_shared_mutex::unique_guard>>(mutex->try_lock());
  mutex->async_lock([mutex, guard](roster::error_code, async_shared_mutex::unique_guard) {});
  drain(*context);
  mutex.reset();
  guard.reset();
  CHECK_FALSE(watched.expired());
  context.reset();
  CHECK(watched.expired());
}

TEST_CASE("waiters survive their context being stopped and restarted", "[lock][b5]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto guard = mutex.try_lock();
  write_request first{mutex};
  drain(context);
  if (GENERATE(false, true)) test::pass_head(context, mutex, guard);
  context.stop();
  write_request second{mutex};
  guard.reset();
  first.cancel();
  CHECK(context.poll() == 0);
  CHECK(first.waits());
  drain(context);
  CHECK(first.done());
  if (first.holds()) first.release();
  drain(context);
  CHECK(second.holds());
}

TEST_CASE("a pool's destruction drops the handlers that waited on it", "[lock][b5]") {
  asio::io_context context;
  async_shared_mutex mutex{context};
  auto guard = mutex.try_lock();
  auto owned = std::make_shared<int>(0);
  std::future<void> broken;
  {
    asio::thread_pool pool{1};
    async_shared_mutex local{pool};
    auto held = local.try_lock();
    broken = asio::co_spawn(pool, lock_and_finish(local, owned), asio::use_future);
    std::promise<void> flushed;
    asio::post(pool, [&] { asio::post(pool, [&] { asio::post(pool, [&] { flushed.set_value(); }); }); });
    flushed.get_future().wait();
    pool.stop();
    pool.join();
  }
  CHECK_THROWS(broken.get());
  CHECK(owned.use_count() == 1);
  CHECK(*owned == 0);
}

TEST_CASE("a handler without an executor of its own is refused after the context died, not called", "[lock][b5]") {
  auto context = std::make_unique<asio::io_context>();
  async_shared_mutex mutex{*context};
  context.reset();
  int calls = 0;
  const auto handler = [&](roster::error_code, async_shared_mutex::unique_guard) { ++calls; };
  CHECK_THROWS_AS(mutex.async_lock(handler), asio::execution::bad_executor);
  auto guard = mutex.try_lock();
  REQUIRE(guard);
  CHECK_THROWS_AS(mutex.async_lock(handler), asio::execution::bad_executor);
  guard.reset();
  CHECK(mutex.try_lock());
  CHECK(calls == 0);
}
