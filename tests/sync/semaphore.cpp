#include <roster/sync/semaphore.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/system_executor.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/version.hpp>
#if BOOST_ASIO_VERSION >= 102700
#include <boost/asio/bind_immediate_executor.hpp>
#endif

#include <deque>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>

namespace asio = boost::asio;
using roster::async_semaphore;
using roster::error_code;
using test::drain;
using permit = async_semaphore::permit;

namespace {

class request {
  struct state {
    asio::cancellation_signal signal;
    int calls = 0;
    error_code code;
    permit taken;
  };

  std::shared_ptr<state> state_ = std::make_shared<state>();

  auto handler() {
    return asio::bind_cancellation_slot(state_->signal.slot(), [self = state_](error_code code, permit taken) {
      ++self->calls;
      self->code = code;
      self->taken = std::move(taken);
    });
  }

 public:
  explicit request(async_semaphore& semaphore) { semaphore.async_acquire(handler()); }
  request(async_semaphore& semaphore, const asio::any_io_executor& executor) {
    semaphore.async_acquire(asio::bind_executor(executor, handler()));
  }

  bool waits() const { return state_->calls == 0; }
  int calls() const { return state_->calls; }
  bool holds() const { return state_->calls == 1 && !state_->code && state_->taken.owns_permit(); }
  bool aborted() const {
    return state_->calls == 1 && state_->code == asio::error::operation_aborted && !state_->taken.owns_permit();
  }
  bool dropped() const { return waits() && state_.use_count() == 1; }
  void release() { state_->taken.release(); }
  void cancel(asio::cancellation_type type = asio::cancellation_type::terminal) { state_->signal.emit(type); }
};

asio::awaitable<bool> acquire_often(async_semaphore& semaphore) {
  for (int i = 0; i < 1000; ++i) {
    const auto taken = co_await semaphore.acquire();
    if (!taken.owns_permit()) co_return false;
  }
  co_return true;
}

asio::awaitable<bool> acquire_as_coroutine(async_semaphore& semaphore) {
  const auto taken = co_await semaphore.acquire();
  co_return taken.owns_permit();
}

asio::awaitable<bool> acquire_with_use_awaitable(async_semaphore& semaphore) {
  const auto taken = co_await semaphore.async_acquire(asio::use_awaitable);
  co_return taken.owns_permit();
}

asio::awaitable<bool> acquire_with_as_tuple(async_semaphore& semaphore) {
  const auto result = co_await semaphore.async_acquire(asio::as_tuple(asio::use_awaitable));
  co_return !std::get<0>(result) && std::get<1>(result).owns_permit();
}

asio::awaitable<bool> acquire_with_redirect_error(async_semaphore& semaphore) {
  error_code code = asio::error::would_block;
  const auto taken = co_await semaphore.async_acquire(asio::redirect_error(asio::use_awaitable, code));
  co_return !code && taken.owns_permit();
}

asio::awaitable<bool> acquire_with_deferred(async_semaphore& semaphore) {
  const auto taken = co_await semaphore.async_acquire(asio::deferred);
  co_return taken.owns_permit();
}

asio::awaitable<std::size_t> acquire_or_gate(async_semaphore& semaphore, test::gate& gate) {
  using namespace asio::experimental::awaitable_operators;
  const auto winner = co_await (semaphore.acquire() || gate.wait());
  co_return winner.index();
}

}  // namespace

TEST_CASE("a semaphore hands out its permits, and takes them back", "[semaphore]") {
  asio::io_context context;
  async_semaphore semaphore{context, 2};
  CHECK(semaphore.available() == 2);
  auto one = semaphore.try_acquire();
  auto two = semaphore.try_acquire();
  REQUIRE(one);
  REQUIRE(two);
  CHECK(semaphore.available() == 0);
  CHECK_FALSE(semaphore.try_acquire());
  one->release();
  CHECK(semaphore.available() == 1);
  one->release();
  CHECK(semaphore.available() == 1);
  two.reset();
  CHECK(semaphore.available() == 2);
}

TEST_CASE("permits move like guards: each is given back exactly once", "[semaphore][b7]") {
  asio::io_context context;
  async_semaphore semaphore{context, 3};
  auto one = semaphore.try_acquire().value();
  auto two = semaphore.try_acquire().value();
  auto moved = std::move(one);
  CHECK_FALSE(one.owns_permit());
  CHECK(semaphore.available() == 1);
  auto& alias = moved;
  moved = std::move(alias);
  CHECK(moved.owns_permit());
  moved = std::move(two);
  CHECK(semaphore.available() == 2);
  std::thread([held = std::move(moved)]() mutable { held.release(); }).join();
  CHECK(semaphore.available() == 3);
}

TEST_CASE("a semaphore without permits grants nothing", "[semaphore]") {
  asio::io_context context;
  async_semaphore semaphore{context, 0};
  CHECK_FALSE(semaphore.try_acquire());
  request waiting{semaphore};
  drain(context);
  CHECK(waiting.waits());
  waiting.cancel();
  drain(context);
  CHECK(waiting.aborted());
}

TEST_CASE("a free permit is taken without suspending", "[semaphore]") {
  asio::io_context context;
  async_semaphore semaphore{context, 1};
  auto task = test::spawn(context, acquire_often(semaphore));
  CHECK(drain(context) < 10);
  CHECK(task.value());
}

TEST_CASE("permits go to waiters first come, first served, and try_acquire passes nobody", "[semaphore][b2]") {
  asio::io_context context;
  async_semaphore semaphore{context, 1};
  auto held = semaphore.try_acquire();
  std::deque<request> requests;
  for (int i = 0; i < 4; ++i)
    requests.emplace_back(semaphore);
  drain(context);
  held.reset();
  CHECK_FALSE(semaphore.try_acquire());
  for (auto& next : requests) {
    CHECK(semaphore.available() == 0);
    drain(context);
    REQUIRE(next.holds());
    next.release();
    if (&next != &requests.back()) CHECK_FALSE(semaphore.try_acquire());
  }
  drain(context);
  CHECK(semaphore.available() == 1);
}

TEST_CASE("acquiring and releasing complete nothing inside the call", "[semaphore][b3]") {
  asio::io_context context;
  async_semaphore semaphore{context, 1};
  int calls_inside = 0;
  std::optional<request> first, second;
  asio::post(context, [&] {
    first.emplace(semaphore);
    second.emplace(semaphore);
    calls_inside += first->calls();
  });
  drain(context);
  REQUIRE(first->holds());
  asio::post(context, [&] {
    first->release();
    calls_inside += second->calls();
  });
  drain(context);
  CHECK(calls_inside == 0);
  CHECK(second->holds());
}

TEST_CASE("a waiter for a permit resumes on its own executor", "[semaphore][b4]") {
  asio::io_context context, other;
  async_semaphore semaphore{context, 1};
  const auto strand = asio::make_strand(other);
  auto held = semaphore.try_acquire();
  bool on_strand = false;
  semaphore.async_acquire(
      asio::bind_executor(strand, [&](error_code, permit) { on_strand = strand.running_in_this_thread(); }));
  request free{semaphore, other.get_executor()};
  held.reset();
  drain(context);
  CHECK_FALSE(on_strand);
  drain(other);
  CHECK(on_strand);
  CHECK(free.holds());
}

TEST_CASE("a cancelled waiter leaves the queue in order and keeps no permit", "[semaphore][b1]") {
  asio::io_context context;
  async_semaphore semaphore{context, 1};
  auto held = semaphore.try_acquire();
  request first{semaphore}, middle{semaphore}, last{semaphore};
  middle.cancel();
  drain(context);
  CHECK(middle.aborted());
  held.reset();
  drain(context);
  CHECK(first.holds());
  first.release();
  drain(context);
  CHECK(last.holds());
}

TEST_CASE("a cancellation that races with a permit has one outcome, and the permit goes on", "[semaphore][b1]") {
  const bool cancel_first = GENERATE(false, true);
  const auto steps = GENERATE(range(std::size_t{0}, std::size_t{4}));
  asio::io_context context;
  async_semaphore semaphore{context, 1};
  auto held = semaphore.try_acquire();
  request raced{semaphore}, next{semaphore};
  if (cancel_first)
    raced.cancel();
  else
    held.reset();
  test::step(context, steps);
  if (cancel_first)
    held.reset();
  else
    raced.cancel();
  drain(context);
  CHECK(raced.holds() != raced.aborted());
  raced.release();
  drain(context);
  CHECK(next.holds());
}

TEST_CASE("cancelling a waiter for a permit twice, late, or from another thread is harmless", "[semaphore][b6]") {
  asio::io_context context;
  async_semaphore semaphore{context, 1};
  auto held = semaphore.try_acquire();
  request twice{semaphore}, late{semaphore};
  auto foreign = test::spawn(context, acquire_as_coroutine(semaphore));
  drain(context);
  twice.cancel();
  twice.cancel();
  std::thread([&] { foreign.cancel(); }).join();
  drain(context);
  twice.cancel();
  CHECK(twice.aborted());
  CHECK(foreign.aborted());
  held.reset();
  drain(context);
  late.cancel();
  drain(context);
  CHECK(late.holds());
  late.release();
  CHECK(semaphore.available() == 1);
}

TEST_CASE("any type of cancellation removes a waiter for a permit", "[semaphore][b6]") {
  const auto type =
      GENERATE(asio::cancellation_type::terminal, asio::cancellation_type::partial, asio::cancellation_type::total);
  asio::io_context context;
  async_semaphore semaphore{context, 0};
  request waiting{semaphore};
  waiting.cancel(asio::cancellation_type::none);
  drain(context);
  CHECK(waiting.waits());
  waiting.cancel(type);
  drain(context);
  CHECK(waiting.aborted());
}

TEST_CASE("destroying a semaphore aborts its waiters and leaves permits valid", "[semaphore][b5]") {
  asio::io_context context;
  std::optional<async_semaphore> semaphore{std::in_place, context, std::size_t{1}};
  auto held = semaphore->try_acquire();
  request waiting{*semaphore};
  auto packaged = semaphore->acquire();
  semaphore.reset();
  CHECK(held->owns_permit());
  auto late = test::spawn(context, std::move(packaged));
  drain(context);
  CHECK(waiting.aborted());
  CHECK(late.aborted());
  held.reset();
}

TEST_CASE("a semaphore's context may die first: handlers are dropped, others are told", "[semaphore][b5]") {
  const bool on_strand = GENERATE(false, true);
  const bool released = GENERATE(false, true);
  asio::io_context other;
  auto context = std::make_unique<asio::io_context>();
  asio::any_io_executor executor = context->get_executor();
  if (on_strand) executor = asio::make_strand(*context);
  std::optional<async_semaphore> semaphore{std::in_place, executor, std::size_t{1}};
  executor = nullptr;
  auto held = semaphore->try_acquire();
  request here{*semaphore}, again{*semaphore}, elsewhere{*semaphore, other.get_executor()};
  if (released) held.reset();
  context.reset();
  drain(other);
  CHECK(here.dropped());
  CHECK(again.dropped());
  CHECK((elsewhere.aborted() || elsewhere.holds()));
  held.reset();
  elsewhere.release();
  CHECK(semaphore->available() == 1);
  auto late = semaphore->try_acquire();
  request refused{*semaphore, other.get_executor()};
  drain(other);
  CHECK(refused.aborted());
  semaphore.reset();
  late.reset();
}

TEST_CASE("a permit that was granted but not delivered goes to the next waiter", "[semaphore][b5][b7]") {
  asio::io_context context;
  auto other = std::make_unique<asio::io_context>();
  async_semaphore semaphore{context, 1};
  auto held = semaphore.try_acquire();
  request undelivered{semaphore, other->get_executor()}, next{semaphore};
  held.reset();
  other.reset();
  CHECK(undelivered.dropped());
  drain(context);
  CHECK(next.holds());
}

TEST_CASE("a semaphore may be destroyed by the handler it called", "[semaphore][b5]") {
  asio::io_context context;
  auto semaphore = std::make_unique<async_semaphore>(context, std::size_t{0});
  int calls = 0;
  semaphore->async_acquire([&](error_code, permit) { ++calls; });
  auto destroying = std::make_unique<async_semaphore>(context, std::size_t{1});
  destroying->async_acquire([&](error_code, permit) {
    destroying.reset();
    semaphore.reset();
  });
  drain(context);
  CHECK(calls == 1);
}

TEST_CASE("coroutine forms and coroutine tokens get a permit", "[semaphore][tokens]") {
  const auto form = GENERATE(acquire_as_coroutine, acquire_with_use_awaitable, acquire_with_as_tuple,
                             acquire_with_redirect_error, acquire_with_deferred);
  const bool contended = GENERATE(false, true);
  asio::io_context context;
  async_semaphore semaphore{context, 1};
  std::optional<permit> held;
  if (contended) held = semaphore.try_acquire();
  auto task = test::spawn(context, form(semaphore));
  drain(context);
  CHECK(task.done() == !contended);
  held.reset();
  drain(context);
  CHECK(task.value());
  CHECK(semaphore.available() == 1);
}

TEST_CASE("futures, detached operations and named callbacks get a permit", "[semaphore][tokens]") {
  asio::io_context context;
  async_semaphore semaphore{context, 1};
  auto held = semaphore.try_acquire();
  std::future<permit> future = semaphore.async_acquire(asio::use_future);
  semaphore.async_acquire(asio::detached);
  auto calls = std::make_shared<int>(0);
  const auto callback = [calls](error_code, permit) { ++*calls; };
  semaphore.async_acquire(callback);
  CHECK(calls.use_count() == 3);
  held.reset();
  drain(context);
  CHECK(future.get().owns_permit());
  drain(context);
  CHECK(*calls == 1);
  CHECK(semaphore.available() == 1);
}

TEST_CASE("the loser of an or-operator leaves a semaphore's queue", "[semaphore][tokens][b1]") {
  asio::io_context context;
  async_semaphore semaphore{context, 1};
  test::gate gate{context};
  auto held = semaphore.try_acquire();
  auto task = test::spawn(context, acquire_or_gate(semaphore, gate));
  drain(context);
  const bool both = GENERATE(false, true);
  gate.open();
  if (both) held.reset();
  drain(context);
  CHECK(task.succeeded());
  held.reset();
  drain(context);
  CHECK(semaphore.available() == 1);
}

TEST_CASE("the memory of a waiter for a permit is returned before its handler runs", "[semaphore]") {
  asio::io_context context;
  async_semaphore semaphore{context, 1};
  auto held = semaphore.try_acquire();
  auto counts = std::make_shared<test::allocation_counts>();
  std::size_t live_in_handler = 99;
  semaphore.async_acquire(asio::bind_allocator(test::counting_allocator<void>(counts),
                                               [&](error_code, permit) { live_in_handler = counts->live; }));
  CHECK(counts->live > 0);
  held.reset();
  drain(context);
  CHECK(live_in_handler == 0);
}

TEST_CASE("coroutines with an executor type of their own have a semaphore of that type", "[semaphore][tokens]") {
  using executor_type = asio::io_context::executor_type;
  using semaphore_type = roster::basic_async_semaphore<executor_type>;
  asio::io_context context;
  semaphore_type semaphore{context, 1};
  auto held = semaphore.try_acquire();
  bool taken = false;
  auto waiting = [](semaphore_type& which, bool& result) -> asio::awaitable<void, executor_type> {
    const auto mine = co_await which.acquire();
    result = mine.owns_permit();
  };
  asio::co_spawn(context, waiting(semaphore, taken), asio::detached);
  auto other = [](semaphore_type& which) -> asio::awaitable<bool> {
    const auto mine = co_await which.async_acquire(asio::use_awaitable);
    co_return mine.owns_permit();
  };
  auto task = test::spawn(context, other(semaphore));  // whose executor is any
  drain(context);
  CHECK_FALSE(taken);
  CHECK_FALSE(task.done());
  held.reset();
  drain(context);
  CHECK(taken);
  CHECK(task.value());
}

#if BOOST_ASIO_VERSION >= 102700
TEST_CASE("an immediate executor lets a free permit arrive inside the call", "[semaphore][b3]") {
  asio::io_context context;
  async_semaphore semaphore{context, 1};
  int calls = 0;
  semaphore.async_acquire(
      asio::bind_immediate_executor(asio::system_executor(), [&](error_code, permit taken) { calls += taken.owns_permit(); }));
  CHECK(calls == 1);
  CHECK(semaphore.available() == 1);
}
#endif

TEST_CASE("the memory of a waiter for a permit is returned before its handler is destroyed uncalled", "[semaphore][b5]") {
  test::handler_memory memory;
  auto context = std::make_unique<asio::io_context>();
  async_semaphore semaphore{*context, 1};
  auto held = semaphore.try_acquire();
  semaphore.async_acquire(memory.handler());
  SECTION("it waits") {}
  SECTION("it was given the permit") {
    held.reset();
  }
  REQUIRE(memory.live() > 0);
  context.reset();
  CHECK(memory.live_at_the_end == std::size_t{0});
}
