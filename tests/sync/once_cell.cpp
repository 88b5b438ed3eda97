#include <roster/sync/once_cell.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/sync/cell_probe.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_future.hpp>

#include <array>
#include <deque>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

namespace asio = boost::asio;
using roster::async_once_cell;
using test::cell_request;
using test::drain;
using test::get;
using test::int_cell;
using test::probe;
using test::seven;

namespace {

template <typename Initialise>
asio::awaitable<int> get_number(int_cell& cell, Initialise initialise) {
  const auto value = co_await cell.get_or_init(initialise);
  co_return *value;
}

asio::awaitable<int> throws_at_once() {
  throw std::runtime_error("synchronously");
}

asio::awaitable<int> throws_a_number() {
  co_await asio::post(asio::use_awaitable);
  throw 42;
}

asio::awaitable<std::string> join(std::unique_ptr<std::string> left, const std::string& right) {
  co_await asio::post(asio::use_awaitable);
  co_return *left + right;
}

}  // namespace

TEST_CASE("a thousand first calls run the initialiser once and share one value", "[cell][b8]") {
  asio::io_context context;
  int_cell cell{context};
  probe initialiser{context};
  std::deque<cell_request<>> requests;
  for (int i = 0; i < 1000; ++i)
    requests.emplace_back(cell, initialiser.initialiser());
  drain(context);
  CHECK(initialiser.started == 1);
  CHECK(cell.try_get() == nullptr);
  initialiser.gate.open();
  drain(context);
  REQUIRE(cell.try_get() != nullptr);
  int right = 0;
  for (auto& request : requests)
    right += request.has_value() && request.value().get() == cell.try_get();
  CHECK(right == 1000);
  CHECK(initialiser.started == 1);
}

TEST_CASE("a failure reaches all thousand callers with its cause, and the next call tries again", "[cell][b8]") {
  asio::io_context context;
  int_cell cell{context};
  probe bad{context}, good{context};
  bad.fails = true;
  std::deque<cell_request<>> requests;
  for (int i = 0; i < 1000; ++i)
    requests.emplace_back(cell, bad.initialiser());
  drain(context);
  bad.gate.open();
  drain(context);
  CHECK(bad.started == 1);
  for (auto& request : requests) {
    REQUIRE(request.failed());
    REQUIRE_THROWS_WITH(std::rethrow_exception(request.failure()), "cause");
  }
  CHECK(cell.try_get() == nullptr);
  good.gate.open();
  cell_request<> again{cell, good.initialiser()};
  drain(context);
  REQUIRE(again.has_value());
  CHECK(*again.value() == 7);
}

TEST_CASE("coroutines share one flight as callbacks do", "[cell][b8]") {
  asio::io_context context;
  int_cell cell{context};
  probe initialiser{context};
  auto one = test::spawn(context, get(cell, initialiser));
  auto two = test::spawn(context, get(cell, initialiser));
  drain(context);
  initialiser.gate.open();
  drain(context);
  CHECK(one.succeeded());
  CHECK(two.succeeded());
  CHECK(initialiser.started == 1);
}

TEST_CASE("a value that is there is returned without suspending and without another run", "[cell]") {
  asio::io_context context;
  int_cell cell{context};
  probe unused{context};
  cell_request<> first{cell, seven};
  drain(context);
  auto twice = [](int_cell& which, probe& other) -> asio::awaitable<int> {
    const auto one = co_await which.get_or_init(other.initialiser());
    const auto two = co_await which.get_or_init(other.initialiser());
    co_return *one + *two;
  };
  auto task = test::spawn(context, twice(cell, unused));
  test::step(context);
  bool others_ran = false;
  asio::post(context, [&] { others_ran = true; });
  CHECK(drain(context) < 5);
  CHECK(task.value() == 14);
  CHECK(unused.started == 0);
}

TEST_CASE("a token form never completes inside the call, with or without a value", "[cell][b3]") {
  asio::io_context context;
  int_cell cell{context};
  int calls_inside = 0;
  asio::post(context, [&] {
    cell_request<> request{cell, seven};
    calls_inside += request.calls();
  });
  drain(context);
  REQUIRE(cell.try_get());
  asio::post(context, [&] {
    cell_request<> request{cell, seven};
    calls_inside += request.calls();
  });
  drain(context);
  CHECK(calls_inside == 0);
}

TEST_CASE("an initialiser may throw before it suspends, or something that is no exception", "[cell][b8]") {
  asio::io_context context;
  int_cell cell{context};
  cell_request<> synchronous{cell, throws_at_once}, number{cell, throws_a_number};
  drain(context);
  REQUIRE(synchronous.failed());
  CHECK_THROWS_WITH(std::rethrow_exception(synchronous.failure()), "synchronously");
  REQUIRE(number.failed());
  cell_request<> another{cell, throws_a_number};
  drain(context);
  REQUIRE(another.failed());
  CHECK_THROWS_AS(std::rethrow_exception(another.failure()), int);
  auto not_even_a_coroutine = []() -> asio::awaitable<int> { throw std::logic_error("plain function"); };
  cell_request<> plain{cell, not_even_a_coroutine};
  drain(context);
  CHECK_THROWS_WITH(std::rethrow_exception(plain.failure()), "plain function");
  cell_request<> last{cell, seven};
  drain(context);
  CHECK(last.has_value());
}

TEST_CASE("an initialiser that never suspends runs on the cell's context, once, and completes nobody inside a call",
          "[cell][b3][b8]") {
  asio::io_context context, callers;
  int_cell cell{context};
  int runs = 0;
  const auto at_once = [&runs]() -> asio::awaitable<int> {
    ++runs;
    co_return 7;
  };
  cell_request<> elsewhere{cell, at_once, callers.get_executor()};
  auto task = test::spawn(callers, get_number(cell, at_once));
  drain(callers);
  CHECK(runs == 0);
  std::deque<cell_request<>> here;
  int calls_inside = 0;
  asio::post(context, [&] {
    for (int i = 0; i < 3; ++i) {
      here.emplace_back(cell, at_once);
      calls_inside += here.back().calls();
    }
  });
  drain(context);
  CHECK(calls_inside == 0);
  CHECK(runs == 1);
  for (auto& request : here)
    CHECK(request.has_value());
  CHECK(elsewhere.waits());
  drain(callers);
  CHECK(elsewhere.has_value());
  CHECK(task.value() == 7);
}

TEST_CASE("initialisers that never suspend, each started by what is told of the one before, do not grow the stack",
          "[cell][b3][b8]") {
  asio::io_context context;
  int_cell cell{context};
  int left = 10'000;
  const auto fails = [&left]() -> asio::awaitable<int> {
    if (--left > 0) throw std::runtime_error("not yet");
    co_return 7;
  };
  SECTION("by a handler") {
    auto again = [&](const auto& self) -> void {
      cell.async_get_or_init(fails, [self](const std::exception_ptr& failure, const int_cell::value_type&) {
        if (failure) self(self);
      });
    };
    again(again);
    drain(context);
  }
  SECTION("by a coroutine") {
    auto persist = [](int_cell& which, auto initialise) -> asio::awaitable<void> {
      for (bool failed = true; failed;) {
        try {
          co_await which.get_or_init(initialise);
          failed = false;
        } catch (const std::runtime_error&) {
        }
      }
    };
    auto task = test::spawn(context, persist(cell, fails));
    drain(context);
    CHECK(task.succeeded());
  }
  CHECK(left == 0);
  CHECK(cell.try_get());
}

TEST_CASE("a call made by a failed call's handler starts anew and never sees the old failure", "[cell][b8]") {
  asio::io_context context;
  int_cell cell{context};
  probe bad{context}, good{context};
  bad.fails = true;
  std::deque<cell_request<>> retries;
  auto retry = [&](std::exception_ptr failure, int_cell::value_type) {
    if (failure) retries.emplace_back(cell, good.initialiser());
  };
  for (int i = 0; i < 5; ++i)
    cell.async_get_or_init(bad.initialiser(), retry);
  drain(context);
  bad.gate.open();
  drain(context);
  REQUIRE(retries.size() == 5);
  CHECK(good.started == 1);
  good.gate.open();
  drain(context);
  for (auto& request : retries)
    CHECK(request.has_value());
}

TEST_CASE("initialisation runs on the cell's context, and callers resume on their own", "[cell][b4]") {
  asio::io_context context, callers;
  int_cell cell{context};
  probe initialiser{context};
  initialiser.gate.open();
  auto task = test::spawn(callers, get(cell, initialiser));
  cell_request<> request{cell, initialiser.initialiser(), callers.get_executor()};
  drain(callers);
  CHECK(initialiser.started == 0);
  drain(context);
  CHECK(initialiser.started == 1);
  CHECK(request.waits());
  CHECK_FALSE(task.done());
  drain(callers);
  CHECK(request.has_value());
  CHECK(task.succeeded());
}

TEST_CASE("arguments are moved into the flight, and released with it", "[cell]") {
  asio::io_context context;
  async_once_cell<std::string> cell{context};
  auto owned = std::make_shared<int>(1);
  auto initialise = [owned](std::unique_ptr<std::string> left, const std::string& right) {
    return join(std::move(left), right);
  };
  auto use = [](async_once_cell<std::string>& which, auto& f) -> asio::awaitable<std::string> {
    auto left = std::make_unique<std::string>("left ");
    const auto value = co_await which.get_or_init(f, std::move(left), std::string("right"));
    co_return *value;
  };
  auto first = test::spawn(context, use(cell, initialise));
  auto second = test::spawn(context, use(cell, initialise));
  drain(context);
  REQUIRE(first.succeeded());
  CHECK(first.value() == "left right");
  CHECK(second.value() == "left right");
  CHECK(owned.use_count() == 2);
}

TEST_CASE("a cell of void runs its initialiser once", "[cell]") {
  asio::io_context context;
  async_once_cell<void> cell{context};
  int runs = 0;
  auto initialise = [&runs]() -> asio::awaitable<void> {
    ++runs;
    co_await asio::post(asio::use_awaitable);
  };
  CHECK_FALSE(cell.try_get());
  cell_request<void> one{cell, initialise}, two{cell, initialise};
  drain(context);
  CHECK(one.has_value());
  CHECK(two.has_value());
  CHECK(runs == 1);
  CHECK(cell.try_get());
}

TEST_CASE("a value whose move throws fails the flight and leaves the cell usable", "[cell]") {
  struct throws_on_move {
    explicit throws_on_move(int left) : moves_left(left) {}
    throws_on_move(throws_on_move&& other) : moves_left(other.moves_left - 1) {
      if (moves_left <= 0) throw std::runtime_error("move");
    }
    int moves_left;
  };
  asio::io_context context;
  async_once_cell<throws_on_move> cell{context};
  auto make = [](int moves) { return [moves]() -> asio::awaitable<throws_on_move> { co_return throws_on_move(moves); }; };
  int failures = 0;
  for (;; ++failures) {  // each move on the way into the cell fails in turn, until none is left
    cell_request<throws_on_move> request{cell, make(failures + 1)};
    drain(context);
    REQUIRE(request.done());
    if (request.has_value()) break;
    CHECK_THROWS_WITH(std::rethrow_exception(request.failure()), "move");
    REQUIRE(failures < 100);
  }
  CHECK(failures >= 3);
}

TEST_CASE("an initialiser that awaits its own cell is told would_deadlock", "[cell][b10]") {
  asio::io_context context;
  int_cell cell{context};
  SECTION("with the coroutine form") {
    auto own = [&cell]() -> asio::awaitable<int> { co_return *co_await cell.get_or_init(seven); };
    cell_request<> request{cell, own};
    drain(context);
    REQUIRE(request.failed());
    CHECK(test::code_of(request.failure()) == roster::errc::would_deadlock);
  }
  SECTION("with a token, in a nested coroutine, after a suspension") {
    auto inner = [](int_cell& which) -> asio::awaitable<roster::error_code> {
      auto result = co_await which.async_get_or_init(seven, asio::as_tuple(asio::use_awaitable));
      co_return test::code_of(std::get<0>(result));
    };
    roster::error_code seen;
    auto own = [&]() -> asio::awaitable<int> {
      co_await asio::post(asio::use_awaitable);
      seen = co_await inner(cell);
      co_return 8;
    };
    cell_request<> request{cell, own};
    drain(context);
    CHECK(seen == roster::errc::would_deadlock);
    REQUIRE(request.has_value());
    CHECK(*request.value() == 8);
  }
  SECTION("with a fresh cancellation state") {
    auto own = [&cell]() -> asio::awaitable<int> {
      co_await asio::this_coro::reset_cancellation_state(asio::enable_total_cancellation());
      co_return *co_await cell.get_or_init(seven);
    };
    cell_request<> request{cell, own};
    drain(context);
    REQUIRE(request.failed());
    CHECK(test::code_of(request.failure()) == roster::errc::would_deadlock);
  }
  cell_request<> after{cell, seven};
  drain(context);
  CHECK(after.has_value());
}

TEST_CASE("an initialiser that resets its cancellation state is still told would_deadlock, and nobody else is", "[cell][b10]") {
  asio::io_context context;
  int_cell cell{context};
  test::gate gate{context};
  // Larger than the state it replaces, whose memory Asio gives to the next operation that can be cancelled.
  const auto filter = [owned = std::array<std::shared_ptr<int>, 4>()](asio::cancellation_type type) {
    return owned[0] ? asio::cancellation_type::none : type;
  };
  roster::error_code seen;
  auto own = [&]() -> asio::awaitable<int> {
    co_await asio::this_coro::reset_cancellation_state(filter, filter);
    co_await gate.wait();
    auto result = co_await cell.async_get_or_init(seven, asio::as_tuple(asio::use_awaitable));
    seen = test::code_of(std::get<0>(result));
    co_return 8;
  };
  cell_request<> first{cell, own};
  drain(context);
  std::deque<test::task<int>> others;
  for (int i = 0; i < 40; ++i)
    others.push_back(test::spawn(context, get_number(cell, seven)));
  drain(context);
  gate.open();
  drain(context);
  CHECK(seen == roster::errc::would_deadlock);
  CHECK(first.has_value());
  for (auto& each : others)
    CHECK(each.succeeded());
}

TEST_CASE("what an initialiser awaits on its executor is told would_deadlock, what it detaches there waits", "[cell][b10]") {
  asio::io_context context;
  int_cell cell{context};
  roster::error_code seen;
  auto spawned = [&]() -> asio::awaitable<int> {
    const auto executor = co_await asio::this_coro::executor;
    auto child = get_number(cell, seven);
    try {
      co_await asio::co_spawn(executor, std::move(child), asio::use_awaitable);
    } catch (const boost::system::system_error& e) {
      seen = e.code();
    }
    co_return 8;
  };
  auto beside = [&]() -> asio::awaitable<int> {
    using namespace asio::experimental::awaitable_operators;
    try {
      co_await (get_number(cell, seven) && seven());
    } catch (const boost::system::system_error& e) {
      seen = e.code();
    }
    co_return 8;
  };
  int detached = 0;
  auto note = [](int_cell& which, int& result) -> asio::awaitable<void> { result = *co_await which.get_or_init(seven); };
  auto detaches = [&]() -> asio::awaitable<int> {
    const auto executor = co_await asio::this_coro::executor;
    asio::co_spawn(executor, note(cell, detached), asio::detached);
    co_await asio::post(asio::use_awaitable);
    co_return 8;
  };
  SECTION("spawned") {
    cell_request<> request{cell, spawned};
    drain(context);
    CHECK(request.has_value());
    CHECK(seen == roster::errc::would_deadlock);
  }
  SECTION("side by side") {
    cell_request<> request{cell, beside};
    drain(context);
    CHECK(request.has_value());
    CHECK(seen == roster::errc::would_deadlock);
  }
  SECTION("detached") {
    cell_request<> request{cell, detaches};
    drain(context);
    CHECK(request.has_value());
    CHECK(detached == 8);
  }
}

TEST_CASE("what an earlier initialiser left on its executor is no part of a later one", "[cell][b10]") {
  asio::io_context context;
  int_cell cell{context};
  probe later{context};
  asio::any_io_executor left;
  auto fails = [&left]() -> asio::awaitable<int> {
    left = co_await asio::this_coro::executor;
    throw std::runtime_error("cause");
  };
  cell_request<> first{cell, fails};
  drain(context);
  CHECK(first.failed());
  cell_request<> second{cell, later.initialiser()};
  drain(context);
  auto straggler = test::spawn(left, get_number(cell, seven));
  drain(context);
  later.gate.open();
  drain(context);
  CHECK(second.has_value());
  CHECK(straggler.succeeded());
  left = asio::any_io_executor();
}

TEST_CASE("other cells, and callers on other coroutines, are no deadlock", "[cell][b10]") {
  asio::io_context context;
  int_cell outer{context}, inner{context};
  auto nested = [&inner]() -> asio::awaitable<int> { co_return 1 + *co_await inner.get_or_init(seven); };
  cell_request<> request{outer, nested};
  cell_request<> beside{outer, seven};
  drain(context);
  REQUIRE(request.has_value());
  CHECK(*request.value() == 8);
  CHECK(*beside.value() == 8);
}

TEST_CASE("while an initialiser is suspended no lock is held: everything else can be called", "[cell][b40]") {
  asio::io_context context;
  int_cell cell{context};
  int from_inside = 0;
  test::gate gate{context};
  std::deque<cell_request<>> inside;
  auto initialise = [&]() -> asio::awaitable<int> {
    from_inside += cell.try_get() == nullptr;
    inside.emplace_back(cell, seven);
    inside.emplace_back(cell, seven);
    inside.back().cancel();
    co_await gate.wait();
    co_return 9;
  };
  cell_request<> request{cell, initialise};
  drain(context);
  CHECK(from_inside == 1);
  REQUIRE(inside.size() == 2);
  CHECK(inside.front().waits());
  CHECK(inside.back().aborted());
  gate.open();
  drain(context);
  CHECK(request.has_value());
  CHECK(inside.front().has_value());
}

TEST_CASE("a cell works with every completion token", "[cell][tokens]") {
  asio::io_context context;
  int_cell cell{context};
  probe initialiser{context};
  const bool ready = GENERATE(false, true);
  if (ready) initialiser.gate.open();
  cell_request<> first{cell, initialiser.initialiser()};
  drain(context);
  auto awaiting = [](int_cell& which) -> asio::awaitable<int> {
    const auto value = co_await which.async_get_or_init(seven, asio::use_awaitable);
    const auto tuple = co_await which.async_get_or_init(seven, asio::as_tuple(asio::use_awaitable));
    co_return *value + *std::get<1>(tuple);
  };
  auto either = [](int_cell& which, test::gate& gate) -> asio::awaitable<std::size_t> {
    using namespace asio::experimental::awaitable_operators;
    const auto winner = co_await (which.get_or_init(seven) || gate.wait());
    co_return winner.index();
  };
  test::gate never{context};
  auto tokens = test::spawn(context, awaiting(cell));
  auto raced = test::spawn(context, either(cell, never));
  std::future<int_cell::value_type> future = cell.async_get_or_init(seven, asio::use_future);
  cell.async_get_or_init(seven, asio::detached);
  auto operation = cell.async_get_or_init(seven, asio::deferred);
  int calls = 0;
  auto count = [&](std::exception_ptr, int_cell::value_type value) { calls += *value == 7; };
  std::move(operation)(count);
  cell.async_get_or_init(seven, count);
  drain(context);
  initialiser.gate.open();
  drain(context);
  CHECK(initialiser.started == 1);
  CHECK(tokens.value() == 14);
  CHECK(raced.value() == 0);
  CHECK(*future.get() == 7);
  CHECK(calls == 2);
}
