#include <roster/sync/once_cell.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/sync/cell_probe.hpp"

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>

#include <memory>
#include <new>

namespace asio = boost::asio;
using roster::async_once_cell;
using test::cell_request;
using test::drain;
using test::int_cell;
using test::probe;
using test::seven;

namespace {

asio::awaitable<std::shared_ptr<int>> share(std::shared_ptr<int> what) {
  co_await asio::post(asio::use_awaitable);
  co_return what;
}

// Everything it waits for belongs to the context it runs on, and dies with it.
struct local_initialiser {
  asio::awaitable<int> make() {
    ++started;
    const std::shared_ptr<int> alive = living;
    for (int i = 0; i < 2; ++i)
      co_await asio::post(asio::use_awaitable);
    asio::steady_timer never(co_await asio::this_coro::executor, asio::steady_timer::time_point::max());
    if (deaf) co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
    if (!ends) co_await never.async_wait(asio::use_awaitable);
    co_return 7;
  }

  auto initialiser() {
    return [this] { return make(); };
  }

  bool running() const { return living.use_count() != 1; }

  bool ends = false;
  bool deaf = false;
  int started = 0;
  std::shared_ptr<int> living = std::make_shared<int>(0);
};

asio::awaitable<int> get_from(int_cell& cell, local_initialiser& local) {
  const auto value = co_await cell.get_or_init(local.initialiser());
  co_return *value;
}

}  // namespace

TEST_CASE("destroying a cell in flight aborts its waiters and asks the initialiser to stop", "[cell][b5]") {
  asio::io_context context;
  auto cell = std::make_unique<int_cell>(context);
  probe initialiser{context};
  cell_request<> one{*cell, initialiser.initialiser()}, two{*cell, initialiser.initialiser()};
  const auto steps = GENERATE(range(std::size_t{0}, std::size_t{6}));
  test::step(context, steps);
  cell.reset();
  drain(context);
  CHECK(one.aborted());
  CHECK(two.aborted());
  CHECK(initialiser.running == 0);
}

TEST_CASE("an initialiser that outlives its cell finishes in peace, and its value is dropped", "[cell][b5]") {
  asio::io_context context;
  auto cell = std::make_unique<async_once_cell<std::shared_ptr<int>>>(context);
  test::gate gate{context};
  auto owned = std::make_shared<int>(1);
  auto deaf = [&gate](std::shared_ptr<int> what) -> asio::awaitable<std::shared_ptr<int>> {
    co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
    co_await gate.wait();
    co_return what;
  };
  auto initialise = [&] { return deaf(owned); };
  cell_request<std::shared_ptr<int>> request{*cell, initialise};
  drain(context);
  cell.reset();
  drain(context);
  CHECK(request.aborted());
  CHECK(owned.use_count() == 2);
  gate.open();
  drain(context);
  CHECK(owned.use_count() == 1);
}

TEST_CASE("a cell may be destroyed by its own initialiser, or by a handler", "[cell][b5]") {
  asio::io_context context;
  auto cell = std::make_unique<int_cell>(context);
  SECTION("initialiser") {
    auto destroy = [&cell]() -> asio::awaitable<int> {
      co_await asio::post(asio::use_awaitable);
      cell.reset();
      co_await asio::this_coro::throw_if_cancelled(false);
      co_await asio::post(asio::use_awaitable);
      co_return 1;
    };
    cell_request<> request{*cell, destroy};
    drain(context);
    CHECK(request.aborted());
  }
  SECTION("handler") {
    int calls = 0;
    auto destroy = [&](std::exception_ptr, int_cell::value_type value) {
      cell.reset();
      calls += *value;
    };
    cell->async_get_or_init(seven, destroy);
    cell->async_get_or_init(seven, destroy);
    drain(context);
    CHECK(calls == 14);
  }
  CHECK_FALSE(cell);
}

TEST_CASE("a call that is started after its cell died is told so", "[cell][b5]") {
  asio::io_context context;
  auto cell = std::make_unique<int_cell>(context);
  probe initialiser{context};
  auto packaged = cell->async_get_or_init(initialiser.initialiser(), asio::deferred);
  auto coroutine = cell->get_or_init(initialiser.initialiser());
  cell.reset();
  roster::error_code code;
  auto handler = [&](std::exception_ptr failure, int_cell::value_type) { code = test::code_of(failure); };
  std::move(packaged)(handler);
  auto task = test::spawn(context, std::move(coroutine));
  drain(context);
  CHECK(code == asio::error::operation_aborted);
  CHECK(task.aborted());
  CHECK(initialiser.started == 0);
}

TEST_CASE("a value outlives the cell and the context that made it", "[cell][b5]") {
  auto context = std::make_unique<asio::io_context>();
  const bool on_strand = GENERATE(false, true);
  std::unique_ptr<async_once_cell<std::shared_ptr<int>>> cell;
  if (on_strand)
    cell = std::make_unique<async_once_cell<std::shared_ptr<int>>>(asio::make_strand(*context));
  else
    cell = std::make_unique<async_once_cell<std::shared_ptr<int>>>(*context);
  auto owned = std::make_shared<int>(1);
  auto initialise = [&] { return share(owned); };
  auto value = [&] {
    cell_request<std::shared_ptr<int>> request{*cell, initialise};
    drain(*context);
    return std::move(request.value());
  }();
  REQUIRE(value);
  const bool cell_first = GENERATE(false, true);
  if (cell_first) cell.reset();
  context.reset();
  cell.reset();
  CHECK(**value == 1);
  CHECK(owned.use_count() == 2);
  value.reset();
  CHECK(owned.use_count() == 1);
}

TEST_CASE("a ready cell serves other contexts after its own died", "[cell][b5]") {
  asio::io_context other;
  auto context = std::make_unique<asio::io_context>();
  int_cell cell{*context};
  cell_request<> first{cell, seven};
  drain(*context);
  context.reset();
  REQUIRE(cell.try_get() != nullptr);
  cell_request<> late{cell, seven, other.get_executor()};
  drain(other);
  CHECK(late.has_value());
}

TEST_CASE("a context may die at any point of a flight: its handlers are dropped, others are told", "[cell][b5]") {
  const auto steps = GENERATE(range(std::size_t{0}, std::size_t{12}));
  const bool ends = GENERATE(false, true);
  const bool on_strand = GENERATE(false, true);
  const bool cell_dies_first = GENERATE(false, true);
  asio::io_context other;
  auto context = std::make_unique<asio::io_context>();
  std::unique_ptr<int_cell> cell;
  if (on_strand)
    cell = std::make_unique<int_cell>(asio::make_strand(*context));
  else
    cell = std::make_unique<int_cell>(*context);
  local_initialiser local;
  local.ends = ends;
  cell_request<> here{*cell, local.initialiser()};
  cell_request<> elsewhere{*cell, local.initialiser(), other.get_executor()};
  auto task = test::spawn(other, get_from(*cell, local));
  drain(other);
  test::step(*context, steps);
  if (cell_dies_first) cell.reset();
  context.reset();
  drain(other);
  CAPTURE(steps, ends, on_strand, cell_dies_first);
  CHECK((here.done() || here.dropped()));
  CHECK((elsewhere.has_value() || elsewhere.aborted()));
  CHECK(task.done());
  CHECK_FALSE(local.running());
  if (cell && !cell->try_get()) {
    cell_request<> late{*cell, local.initialiser(), other.get_executor()};
    drain(other);
    CHECK(late.aborted());
  }
  cell.reset();
  CHECK(local.started <= 1);
}

TEST_CASE("a flight whose last caller left may be destroyed with its context", "[cell][b5][b9]") {
  const auto steps = GENERATE(range(std::size_t{0}, std::size_t{5}));
  const bool deaf = GENERATE(false, true);
  auto context = std::make_unique<asio::io_context>();
  int_cell cell{*context};
  asio::io_context other;
  local_initialiser local, fresh;
  local.deaf = deaf;
  cell_request<> left{cell, local.initialiser()};
  drain(*context);
  left.cancel();
  test::step(*context, steps);
  cell_request<> late{cell, fresh.initialiser(), other.get_executor()};
  context.reset();
  drain(other);
  CHECK(late.aborted());
  CHECK_FALSE(local.running());
  CHECK_FALSE(fresh.running());
}

TEST_CASE("an initialiser that owns its own cell is freed with the context", "[cell][b5]") {
  auto context = std::make_unique<asio::io_context>();
  auto cell = std::make_shared<int_cell>(*context);
  const std::weak_ptr<int_cell> watched = cell;
  local_initialiser local;
  {
    auto initialise = [owner = cell, &local] { return local.make(); };
    cell->async_get_or_init(initialise, [owner = cell](std::exception_ptr, int_cell::value_type) {});
  }
  cell.reset();
  const bool started = GENERATE(false, true);
  if (started) drain(*context);
  CHECK_FALSE(watched.expired());
  context.reset();
  CHECK(watched.expired());
  CHECK_FALSE(local.running());
}

TEST_CASE("a flight whose frame is destroyed by another context fails its waiters", "[cell][b5]") {
  asio::io_context context;
  auto other = std::make_unique<asio::io_context>();
  int_cell cell{context};
  auto wander = [&other]() -> asio::awaitable<int> {
    co_await asio::post(asio::bind_executor(other->get_executor(), asio::use_awaitable));
    co_return 1;
  };
  cell_request<> request{cell, wander};
  drain(context);
  CHECK(request.waits());
  other.reset();
  drain(context);
  CHECK(request.aborted());
}

TEST_CASE("a cell can be used again after an initialiser that died of an operation that could not be started", "[cell]") {
  asio::io_context context;
  int_cell cell{context};
  for (const bool suspends : {false, true}) {
    auto dies = [suspends]() -> asio::awaitable<int> {
      if (suspends) co_await asio::post(asio::use_awaitable);
      co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>([](auto) { throw std::bad_alloc(); },
                                                                           asio::use_awaitable);
      co_return 1;
    };
    // Asio destroys the coroutine, and who resumed it gets the exception: the cell, or the loop.
    cell_request<> request{cell, dies};
    try {
      drain(context);
      CHECK_FALSE(suspends);
    } catch (const std::bad_alloc&) {
      CHECK(suspends);
    }
    cell_request<> next{cell, dies};  // perhaps before the frame is destroyed, which must not end this flight
    try {
      drain(context);
    } catch (const std::bad_alloc&) {
    }
    drain(context);
    CHECK(request.failed());
    CHECK(next.failed());
  }
  cell_request<> last{cell, seven};
  drain(context);
  CHECK(last.has_value());
}

TEST_CASE("waiters survive their context being stopped and restarted in flight", "[cell][b5]") {
  asio::io_context context;
  int_cell cell{context};
  probe initialiser{context};
  cell_request<> one{cell, initialiser.initialiser()};
  drain(context);
  context.stop();
  cell_request<> two{cell, initialiser.initialiser()};
  initialiser.gate.open();
  CHECK(context.poll() == 0);
  drain(context);
  CHECK(one.has_value());
  CHECK(two.has_value());
}

TEST_CASE("the memory of a waiter for a value is returned before its handler is destroyed uncalled", "[cell][b5]") {
  test::handler_memory memory;
  auto context = std::make_unique<asio::io_context>();
  int_cell cell{*context};
  const auto never = []() -> asio::awaitable<int> {
    asio::steady_timer timer(co_await asio::this_coro::executor, asio::steady_timer::time_point::max());
    co_await timer.async_wait(asio::use_awaitable);
    co_return 0;
  };
  SECTION("it waits") {
    cell.async_get_or_init(never, memory.handler());
    drain(*context);
  }
  SECTION("its value is on the way") {
    cell.async_get_or_init(seven, memory.handler());
    while (!cell.try_get() && test::step(*context) == 1) {
    }
    REQUIRE(cell.try_get());
  }
  REQUIRE(memory.live() > 0);
  context.reset();
  CHECK(memory.live_at_the_end == std::size_t{0});
}
