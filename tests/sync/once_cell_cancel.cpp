#include <roster/sync/once_cell.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/sync/cell_probe.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/require.hpp>

#include <deque>
#include <thread>

namespace asio = boost::asio;
using test::cell_request;
using test::drain;
using test::get;
using test::int_cell;
using test::probe;

TEST_CASE("the first caller's cancellation leaves the initialisation running for the others", "[cell][b9]") {
  asio::io_context context;
  int_cell cell{context};
  probe initialiser{context};
  auto first = test::spawn(context, get(cell, initialiser));
  drain(context);
  cell_request<> second{cell, initialiser.initialiser()};
  first.cancel();
  drain(context);
  CHECK(first.aborted());
  CHECK(second.waits());
  CHECK(initialiser.cancelled == 0);
  initialiser.gate.open();
  drain(context);
  CHECK(second.has_value());
  CHECK(initialiser.started == 1);
}

TEST_CASE("the last caller's cancellation asks the initialisation to stop", "[cell][b9]") {
  asio::io_context context;
  int_cell cell{context};
  probe initialiser{context};
  cell_request<> first{cell, initialiser.initialiser()}, second{cell, initialiser.initialiser()};
  drain(context);
  second.cancel();
  drain(context);
  CHECK(initialiser.cancelled == 0);
  first.cancel();
  drain(context);
  CHECK(first.aborted());
  CHECK(second.aborted());
  CHECK(initialiser.cancelled == 1);
  CHECK(initialiser.running == 0);
  CHECK(cell.try_get() == nullptr);
}

TEST_CASE("a caller cancelled before the initialiser started leaves an empty cell", "[cell][b9]") {
  asio::io_context context;
  int_cell cell{context};
  probe initialiser{context};
  cell_request<> early{cell, initialiser.initialiser()};
  early.cancel();
  drain(context);
  CHECK(early.aborted());
  CHECK(initialiser.running == 0);
  initialiser.gate.open();
  cell_request<> next{cell, initialiser.initialiser()};
  drain(context);
  CHECK(next.has_value());
  CHECK(initialiser.most_running == 1);
}

TEST_CASE("a call that arrives while a cancelled initialiser still runs waits for its end", "[cell][b9]") {
  asio::io_context context;
  int_cell cell{context};
  probe old{context}, fresh{context};
  old.deaf = true;
  cell_request<> left{cell, old.initialiser()};
  drain(context);
  left.cancel();
  drain(context);
  REQUIRE(left.aborted());
  REQUIRE(old.running == 1);
  cell_request<> late{cell, fresh.initialiser()}, later{cell, fresh.initialiser()};
  drain(context);
  CHECK(late.waits());
  CHECK(fresh.started == 0);
  SECTION("and takes its value") {
    old.result = 5;
    old.gate.open();
    drain(context);
    REQUIRE(late.has_value());
    CHECK(*late.value() == 5);
    CHECK(later.has_value());
    CHECK(fresh.started == 0);
  }
  SECTION("and starts a fresh one when it failed, never seeing that failure") {
    old.fails = true;
    old.gate.open();
    drain(context);
    CHECK(late.waits());
    CHECK(old.running == 0);
    CHECK(fresh.started == 1);
    fresh.gate.open();
    drain(context);
    CHECK(late.has_value());
    CHECK(later.has_value());
    CHECK(fresh.started == 1);
  }
  SECTION("and may leave again, which starts nothing") {
    late.cancel();
    later.cancel();
    drain(context);
    CHECK(late.aborted());
    CHECK(later.aborted());
    old.fails = true;
    old.gate.open();
    drain(context);
    CHECK(fresh.started == 0);
  }
  SECTION("and when the first newcomer leaves, the second one's initialiser runs") {
    late.cancel();
    drain(context);
    old.fails = true;
    old.gate.open();
    fresh.gate.open();
    drain(context);
    CHECK(late.aborted());
    CHECK(later.has_value());
    CHECK(fresh.started == 1);
  }
}

TEST_CASE("a call that arrives together with the last cancellation is never told cancelled", "[cell][b9]") {
  const auto steps_before_cancel = GENERATE(range(std::size_t{0}, std::size_t{7}));
  const auto steps_before_call = GENERATE(range(std::size_t{0}, std::size_t{7}));
  const bool stubborn = GENERATE(false, true);
  asio::io_context context;
  int_cell cell{context};
  probe old{context}, fresh{context};
  old.stubborn = stubborn;
  fresh.gate.open();
  cell_request<> left{cell, old.initialiser()};
  test::step(context, steps_before_cancel);
  left.cancel();
  test::step(context, steps_before_call);
  cell_request<> late{cell, fresh.initialiser()};
  drain(context);
  CAPTURE(steps_before_cancel, steps_before_call, stubborn);
  CHECK(left.aborted());
  REQUIRE(late.has_value());
  CHECK(old.running + fresh.running == 0);
  CHECK(fresh.most_running <= 1);
}

TEST_CASE("a caller cancelled while the value is on its way has one outcome", "[cell][b6][b9]") {
  const auto steps = GENERATE(range(std::size_t{0}, std::size_t{9}));
  asio::io_context context;
  int_cell cell{context};
  probe initialiser{context};
  cell_request<> raced{cell, initialiser.initialiser()};
  drain(context);
  initialiser.gate.open();
  test::step(context, steps);
  raced.cancel();
  drain(context);
  CAPTURE(steps);
  REQUIRE(raced.done());
  CHECK(raced.has_value() != raced.aborted());
  cell_request<> next{cell, initialiser.initialiser()};
  drain(context);
  CHECK(next.has_value());
}

TEST_CASE("an initialiser that ends by itself as cancelled is a failure like any other", "[cell][b9]") {
  asio::io_context context;
  int_cell cell{context};
  auto gives_up = []() -> asio::awaitable<int> {
    throw boost::system::system_error(asio::error::operation_aborted);
    co_return 0;
  };
  probe good{context};
  good.gate.open();
  cell_request<> told{cell, gives_up};
  drain(context);
  CHECK(told.aborted());
  cell_request<> next{cell, good.initialiser()};
  drain(context);
  CHECK(next.has_value());
}

TEST_CASE("cancelling a cell's caller twice, late, or from another thread is harmless", "[cell][b6]") {
  asio::io_context context;
  int_cell cell{context};
  probe initialiser{context};
  cell_request<> twice{cell, initialiser.initialiser()}, late{cell, initialiser.initialiser()};
  auto foreign = test::spawn(context, get(cell, initialiser));
  drain(context);
  twice.cancel();
  twice.cancel();
  std::thread([&] { foreign.cancel(); }).join();
  drain(context);
  twice.cancel();
  CHECK(twice.aborted());
  CHECK(foreign.aborted());
  initialiser.gate.open();
  drain(context);
  late.cancel();
  drain(context);
  CHECK(late.has_value());
}

TEST_CASE("any type of cancellation detaches a cell's caller", "[cell][b6]") {
  const auto type =
      GENERATE(asio::cancellation_type::terminal, asio::cancellation_type::partial, asio::cancellation_type::total);
  asio::io_context context;
  int_cell cell{context};
  probe initialiser{context};
  cell_request<> leaving{cell, initialiser.initialiser()}, staying{cell, initialiser.initialiser()};
  drain(context);
  leaving.cancel(asio::cancellation_type::none);
  drain(context);
  CHECK(leaving.waits());
  leaving.cancel(type);
  drain(context);
  CHECK(leaving.aborted());
  initialiser.gate.open();
  drain(context);
  CHECK(staying.has_value());
}

TEST_CASE("a cancelled caller is not completed inside the cancellation", "[cell][b3][b6]") {
  asio::io_context context;
  int_cell cell{context};
  probe initialiser{context};
  cell_request<> waiting{cell, initialiser.initialiser()};
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

TEST_CASE("all callers leave, then one more comes: the initialiser runs again, alone", "[cell][b9]") {
  asio::io_context context;
  int_cell cell{context};
  probe initialiser{context};
  for (int round = 0; round < 5; ++round) {
    std::deque<cell_request<>> requests;
    for (int i = 0; i < 10; ++i)
      requests.emplace_back(cell, initialiser.initialiser());
    drain(context);
    for (auto& request : requests)
      request.cancel();
    if (round % 2 == 0) drain(context);
  }
  cell_request<> last{cell, initialiser.initialiser()};
  initialiser.gate.open();
  drain(context);
  CHECK(last.has_value());
  CHECK(initialiser.most_running == 1);
}

// AddressSanitizer sees it.
TEST_CASE("A flight may be cancelled at any step on an executor that never blocks", "[b9]") {
  for (std::size_t steps = 0; steps < 12; ++steps) {
    asio::io_context context;
    test::int_cell cell{asio::any_io_executor(asio::require(context.get_executor(), asio::execution::blocking.never))};
    const auto initialise = []() -> asio::awaitable<int> {
      for (int i = 0; i < 3; ++i)
        co_await asio::post(asio::use_awaitable);
      co_return 7;
    };
    test::cell_request<> request(cell, initialise);
    test::step(context, steps);
    request.cancel();
    test::drain(context);
    CHECK((request.has_value() || request.aborted()));
  }
}
