#include <roster/testing/manual_time.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"

#include <boost/asio/thread_pool.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace asio = boost::asio;
using namespace std::chrono_literals;
using roster::manual_time;
using roster::time_source;
using test::drain;

TEST_CASE("Time stands until it is advanced, and never goes back", "[time]") {
  manual_time time;
  const auto start = time.now();
  CHECK(time.now() == start);
  time.advance(3s);
  CHECK(time.now() == start + 3s);
  time.advance_to(start);
  CHECK(time.now() == start + 3s);
  CHECK(time.from_now((manual_time::duration::max)()) == (manual_time::time_point::max)());
}

TEST_CASE("Alarms ring in the order of their instants, those of one instant in the order they were set", "[time]") {
  asio::io_context loop;
  manual_time time;
  std::string order;
  std::vector<std::unique_ptr<roster::alarm>> alarms;
  for (const char name : {'a', 'b', 'c', 'd'})
    alarms.push_back(time.make_alarm(loop.get_executor(), [&, name] { order += name; }));
  const auto start = time.now();
  alarms[0]->set(start + 3s);
  alarms[1]->set(start + 2s);
  alarms[2]->set(start + 2s);
  alarms[3]->set(start + 9s);
  CHECK(time.next_alarm() == start + 2s);

  time.advance(2s);
  CHECK(order.empty());  // posted, not called
  drain(loop);
  CHECK(order == "bc");
  time.advance(2s);
  drain(loop);
  CHECK(order == "bca");
  CHECK(time.next_alarm() == start + 9s);
}

TEST_CASE("An alarm rings once, at its last setting, at once if that has passed, and never if it is cleared", "[time]") {
  const auto check = [](const std::shared_ptr<time_source>& time, auto pass) {
    asio::io_context loop;
    int rings = 0;
    auto one = time->make_alarm(loop.get_executor(), [&] { ++rings; });
    one->set(time->now());
    CHECK(rings == 0);  // never inside set
    loop.run();
    CHECK(rings == 1);

    one->set(time->from_now(1h));
    one->set(time->from_now(1ms));
    pass(1ms);
    loop.restart();
    loop.run();
    CHECK(rings == 2);

    one->set(time->from_now(1ms));
    one->clear();
    pass(1s);
    loop.restart();
    loop.run();  // an alarm that is not set is no work
    CHECK(rings == 2);

    one->set(time->from_now(1h));
    one.reset();
    pass(2h);
    loop.restart();
    loop.run();
    CHECK(rings == 2);
  };
  SECTION("by hand") {
    const auto time = std::make_shared<manual_time>();
    check(time, [&](manual_time::duration by) { time->advance(by); });
  }
  SECTION("by Asio's timers") {
    check(roster::steady_time(), [](auto) {});  // run() waits
  }
}

TEST_CASE("An alarm that is set keeps its loop at work", "[time]") {
  asio::io_context loop;
  manual_time time;
  auto one = time.make_alarm(loop.get_executor(), [] {});
  loop.poll();
  CHECK(loop.stopped());
  one->set(time.from_now(1s));
  loop.restart();
  loop.poll();
  CHECK_FALSE(loop.stopped());
}

TEST_CASE("An alarm may set itself anew when it rings", "[time]") {
  asio::io_context loop;
  manual_time time;
  int rings = 0;
  std::unique_ptr<roster::alarm> one;
  one = time.make_alarm(loop.get_executor(), [&] {
    if (++rings < 3) one->set(time.from_now(1s));
  });
  one->set(time.from_now(1s));
  for (int i = 1; i <= 4; ++i) {
    time.advance(1s);
    drain(loop);
    CHECK(rings == std::min(i, 3));
  }
}

TEST_CASE("Alarms of many threads are set, cleared and destroyed while time passes", "[time][stress]") {
  asio::thread_pool pool(2);
  manual_time time;
  std::atomic<int> rings{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < 500; ++i) {
        auto one = time.make_alarm(pool.get_executor(), [&] { ++rings; });
        one->set(time.from_now(std::chrono::milliseconds((i * 7 + t) % 5)));
        if (i % 3 == 0) one->clear();
        if (i % 3 == 1) one->set(time.from_now(1ms));
        if (i % 5 == 0) std::this_thread::yield();
      }
    });
  for (int i = 0; i < 500; ++i)
    time.advance(1ms);
  for (auto& each : threads)
    each.join();
  CHECK_FALSE(time.next_alarm());
  pool.join();
  CHECK(rings <= 3 * 500 * 2);
}
