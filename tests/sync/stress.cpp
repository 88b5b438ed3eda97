#include <roster/sync/once_cell.hpp>
#include <roster/sync/semaphore.hpp>
#include <roster/sync/shared_mutex.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/stress.hpp"

#include <boost/asio/post.hpp>

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <random>
#include <stdexcept>
#include <thread>
#include <utility>

// Many coroutines on several threads, doing what the seed says. What they share is unsynchronized but for the primitive under
// test, so that ThreadSanitizer sees whether it is one.

namespace asio = boost::asio;
using roster::async_once_cell;
using roster::async_semaphore;
using roster::async_shared_mutex;

namespace {

constexpr int coroutines = 24;
constexpr unsigned blows = 24;

/// What happens to coroutines that share a primitive.
class storm {
 public:
  explicit storm(std::mt19937& random)
      : cancels(random() % 2), stops(random() % 2), destroys(random() % 3 == 0), random_(random) {}

  /// Runs coroutines that `body` makes of seeds to their ends.
  template <typename T, typename Body>
  void rage(test::looped_coroutines& crew, test::destroyable<T>& primitive, Body body) {
    std::atomic<int> succeeded{0}, aborted{0};
    for (int i = 0; i < coroutines; ++i)
      crew.spawn(body(static_cast<unsigned>(random_())), [&](const std::exception_ptr& failure) {
        if (!failure) ++succeeded;
        if (test::code_of(failure) == asio::error::operation_aborted) ++aborted;
      });
    const auto last = random_() % blows;
    for (unsigned i = 0; i < blows; ++i) {
      if (cancels) crew.cancel_one();
      if (stops && random_() % 4 == 0) crew.stop_or_resume();
      if (destroys && i == last) primitive.destroy();
      if (random_() % 2) std::this_thread::sleep_for(std::chrono::microseconds(random_() % 300));
    }
    crew.join();
    REQUIRE(succeeded + aborted == coroutines);
    if (!cancels && !destroys) REQUIRE(aborted == 0);
  }

  const bool cancels, stops, destroys;

 private:
  std::mt19937& random_;
};

asio::awaitable<void> hop(std::mt19937& random) {
  for (auto hops = random() % 3; hops != 0; --hops)
    co_await asio::post(asio::use_awaitable);
}

/// Begins an operation when the primitive may be gone that was asked for it.
template <typename T>
asio::awaitable<T> later(asio::awaitable<T> operation, std::mt19937& random) {
  co_await hop(random);
  co_return co_await std::move(operation);
}

struct locked_data {
  explicit locked_data(const asio::any_io_executor& executor) : mutex(executor) {}
  test::destroyable<async_shared_mutex> mutex;
  int value = 0;
  std::atomic<int> writes{0};
};

asio::awaitable<void> use_lock(locked_data& data, unsigned seed, int rounds) {
  std::mt19937 random(seed);
  for (int i = 0; i < rounds; ++i) {
    switch (random() % 6) {
      case 0: {
        auto guard = co_await later(data.mutex.call(&async_shared_mutex::lock), random);
        ++data.value;
        ++data.writes;
        co_await hop(random);
        break;
      }
      case 1: {
        auto guard = co_await later(data.mutex.call(&async_shared_mutex::lock), random);
        ++data.value;
        ++data.writes;
        const auto written = data.value;
        const auto reading = std::move(guard).downgrade();
        co_await hop(random);
        if (data.value != written) throw std::logic_error("a writer came between");
        break;
      }
      case 2: {
        if (auto guard = data.mutex.call(&async_shared_mutex::try_lock)) {
          ++data.value;
          ++data.writes;
          co_await hop(random);
        }
        break;
      }
      default: {
        const auto guard = co_await later(data.mutex.call(&async_shared_mutex::lock_shared), random);
        const auto seen = data.value;
        co_await hop(random);
        if (data.value != seen) throw std::logic_error("a writer among readers");
      }
    }
  }
}

struct counted {
  explicit counted(const asio::any_io_executor& executor) : semaphore(executor, 3U) {}
  test::destroyable<async_semaphore> semaphore;
  std::atomic<int> inside{0};

  auto acquire() {
    return semaphore.call([](async_semaphore& alive) { return alive.acquire(); });
  }
};

asio::awaitable<void> use_permits(counted& data, unsigned seed, int rounds) {
  std::mt19937 random(seed);
  for (int i = 0; i < rounds; ++i) {
    std::optional<async_semaphore::permit> taken;
    if (random() % 4)
      taken = co_await later(data.acquire(), random);
    else
      taken = data.semaphore.call(&async_semaphore::try_acquire);
    if (!taken) continue;
    struct leaving {
      std::atomic<int>& inside;
      ~leaving() { --inside; }
    } const left{data.inside};
    if (++data.inside > 3) throw std::logic_error("too many permits");
    co_await hop(random);
  }
}

struct shared_cell {
  shared_cell(const asio::any_io_executor& executor, unsigned first_seed) : cell(executor), seed(first_seed) {}
  test::destroyable<async_once_cell<int>> cell;
  const unsigned seed;
  int running = 0;  // unsynchronized: initialisers never overlap
  int runs = 0;
  int failures = 0;

  static asio::awaitable<int> make(shared_cell& data) {
    std::mt19937 random(data.seed + static_cast<unsigned>(++data.runs));
    if (++data.running != 1) throw std::logic_error("two initialisers at once");
    struct leaving {
      int& count;
      ~leaving() { --count; }
    } const left{data.running};
    co_await hop(random);
    if (random() % 16 != 0) {
      ++data.failures;
      throw boost::system::system_error(make_error_code(roster::errc::bad_model));
    }
    co_await hop(random);
    co_return 7;
  }

  auto get() {
    return cell.call([this](async_once_cell<int>& alive) { return alive.get_or_init(make, std::ref(*this)); });
  }

  bool holds(const int& value) {
    return cell.call([&](async_once_cell<int>& alive) { return alive.try_get() == &value; });
  }
};

asio::awaitable<void> use_cell(shared_cell& data, unsigned seed) {
  std::mt19937 random(seed);
  for (;;) {
    try {
      const auto value = co_await later(data.get(), random);
      if (*value != 7 || !data.holds(*value)) throw std::logic_error("another value");
      co_return;
    } catch (const boost::system::system_error& failure) {
      if (failure.code() != roster::errc::bad_model) throw;
    }
  }
}

}  // namespace

TEST_CASE("Writers exclude everybody else and nobody waits for ever, whatever is cancelled, stopped or destroyed",
          "[lock][stress][b1][b2][b6]") {
  test::stress([](std::uint32_t seed) {
    std::mt19937 random(seed);
    for (int round = 0; round < 12; ++round) {
      storm weather(random);
      test::looped_coroutines crew(random);
      locked_data data(crew.executor());
      weather.rage(crew, data.mutex, [&](unsigned each) { return use_lock(data, each, 60); });
      REQUIRE(data.value == data.writes);
      if (!weather.destroys) REQUIRE(data.mutex.call(&async_shared_mutex::try_lock));
    }
  });
}

TEST_CASE("A semaphore never gives more permits than it has, and gets all back, whatever is cancelled, stopped or destroyed",
          "[semaphore][stress][b1][b6]") {
  test::stress([](std::uint32_t seed) {
    std::mt19937 random(seed);
    for (int round = 0; round < 12; ++round) {
      storm weather(random);
      test::looped_coroutines crew(random);
      counted data(crew.executor());
      weather.rage(crew, data.semaphore, [&](unsigned each) { return use_permits(data, each, 60); });
      REQUIRE(data.inside == 0);
      if (!weather.destroys) REQUIRE(data.semaphore.call(&async_semaphore::available) == 3);
    }
  });
}

TEST_CASE("A cell runs one initialiser at a time until one succeeds, whatever is cancelled, stopped or destroyed",
          "[cell][stress][b8][b9]") {
  test::stress([](std::uint32_t seed) {
    std::mt19937 random(seed);
    for (int round = 0; round < 40; ++round) {
      storm weather(random);
      test::looped_coroutines crew(random);
      shared_cell data(crew.executor(), static_cast<unsigned>(random()));
      weather.rage(crew, data.cell, [&](unsigned each) { return use_cell(data, each); });
      REQUIRE(data.running == 0);
      REQUIRE(data.runs <= data.failures + 1 + (weather.cancels ? coroutines : 0) + weather.destroys);
    }
  });
}
