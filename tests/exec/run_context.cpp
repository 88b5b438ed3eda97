#include <roster/call/run_context.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"

#include <chrono>
#include <cstdint>
#include <limits>
#include <thread>

using namespace std::chrono_literals;
using roster::call_options;
using roster::run_context;
using roster::run_progress;

TEST_CASE("A run_context starts without a stop request, a deadline or progress") {
  run_context context;
  CHECK_FALSE(context.stop_requested());
  CHECK_NOTHROW(context.throw_if_stop_requested());
  CHECK_FALSE(context.deadline());
  CHECK_FALSE(context.expired());
  CHECK(context.progress() == run_progress{});
}

TEST_CASE("A stop request makes throw_if_stop_requested throw operation_aborted, however often it is made") {
  run_context context;
  context.request_stop();
  context.request_stop();
  CHECK(context.stop_requested());
  try {
    context.throw_if_stop_requested();
    FAIL("nothing thrown");
  } catch (const boost::system::system_error& failure) {
    CHECK(failure.code() == boost::asio::error::operation_aborted);
  }
}

TEST_CASE("A stop request made by one thread ends the work of another") {
  run_context context;
  std::thread work([&] {
    while (!context.stop_requested())
      std::this_thread::yield();
  });
  context.request_stop();
  work.join();
}

TEST_CASE("A deadline has expired once its time has come, by the steady clock", "[b44]") {
  STATIC_REQUIRE(call_options::time_point::clock::is_steady);
  const auto now = call_options::time_point::clock::now();
  CHECK(run_context(now - 1ms).expired());
  CHECK(run_context(now).expired());
  CHECK_FALSE(run_context(now + 24h).expired());
  CHECK(run_context(now + 24h).deadline() == now + 24h);
}

TEST_CASE("Progress is what was reported last, both numbers of one report", "[b26]") {
  run_context context;
  context.report_progress(3, 16);
  context.report_progress(4, 16);
  CHECK(context.progress() == run_progress{4, 16});

  const auto most = std::numeric_limits<std::uint32_t>::max();
  context.report_progress(most, most);
  CHECK(context.progress() == run_progress{most, most});
}

TEST_CASE("Progress read while it is reported is never half of one report and half of another", "[b26]") {
  run_context context;
  std::thread work([&] {
    for (std::uint32_t step = 1; step <= 10'000; ++step)
      context.report_progress(step, step);
    context.request_stop();
  });
  bool torn = false;
  while (!context.stop_requested()) {
    const auto seen = context.progress();
    torn = torn || seen.done != seen.total;
  }
  work.join();
  CHECK_FALSE(torn);
}

TEST_CASE("Call options carry a deadline and a device, and neither unless asked for") {
  const call_options none;
  CHECK_FALSE(none.deadline());
  CHECK_FALSE(none.on());

  const auto when = call_options::time_point::clock::now();
  const auto both = call_options().deadline(when).on("cuda:0");
  CHECK(both.deadline() == when);
  REQUIRE(both.on());
  CHECK(both.on()->name() == "cuda:0");
}

TEST_CASE("Devices are equal when their names are, without a name it is the engine's own choice") {
  CHECK(roster::device("cpu") == roster::device(std::string("cpu")));
  CHECK_FALSE(roster::device("cpu") == roster::device("cuda:0"));
  CHECK(roster::device() == roster::device(""));
}
