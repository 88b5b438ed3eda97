#include <roster/sync/once_cell.hpp>
#include <roster/sync/semaphore.hpp>
#include <roster/sync/shared_mutex.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <vector>

// Many coroutines on several threads, doing what the seed says. What they share is unsynchronized but for the primitive under
// test, so that ThreadSanitizer sees whether it is one.

namespace asio = boost::asio;
using roster::async_once_cell;
using roster::async_semaphore;
using roster::async_shared_mutex;

namespace {

constexpr std::size_t coroutines = 24;
constexpr int threads = 3;

struct tally {
  std::atomic<int> succeeded{0};
  std::atomic<int> aborted{0};
  std::atomic<int> wrong{0};

  int total() const { return succeeded + aborted; }
};

/// A coroutine on a strand of its own, cancelled there after a while when the seed says so.
class actor {
 public:
  explicit actor(const asio::any_io_executor& executor) : strand_(asio::make_strand(executor)) {}

  void start(asio::awaitable<void> body, tally& outcomes) {
    auto count = [&outcomes](std::exception_ptr failure) {
      const auto code = test::code_of(failure);
      ++(!failure ? outcomes.succeeded : code == asio::error::operation_aborted ? outcomes.aborted : outcomes.wrong);
    };
    asio::post(strand_, [this, body = std::move(body), count]() mutable {
      asio::co_spawn(strand_, std::move(body), asio::bind_cancellation_slot(signal_.slot(), count));
    });
  }

  void cancel() {
    asio::post(strand_, [this] { signal_.emit(asio::cancellation_type::terminal); });
  }

 private:
  asio::strand<asio::any_io_executor> strand_;
  asio::cancellation_signal signal_;
};

asio::awaitable<void> hop(std::mt19937& random) {
  for (auto hops = random() % 3; hops != 0; --hops)
    co_await asio::post(asio::use_awaitable);
}

struct locked_data {
  explicit locked_data(const asio::any_io_executor& executor) : mutex(executor) {}
  async_shared_mutex mutex;
  int value = 0;
  std::atomic<int> writes{0};
};

asio::awaitable<void> use_lock(locked_data& data, unsigned seed, int rounds) {
  std::mt19937 random(seed);
  for (int i = 0; i < rounds; ++i) {
    switch (random() % 6) {
      case 0: {
        auto guard = co_await data.mutex.lock();
        ++data.value;
        ++data.writes;
        co_await hop(random);
        break;
      }
      case 1: {
        auto guard = co_await data.mutex.lock();
        ++data.value;
        ++data.writes;
        const auto written = data.value;
        const auto reading = std::move(guard).downgrade();
        co_await hop(random);
        if (data.value != written) throw std::logic_error("a writer came between");
        break;
      }
      case 2: {
        if (auto guard = data.mutex.try_lock()) {
          ++data.value;
          ++data.writes;
          co_await hop(random);
        }
        break;
      }
      default: {
        const auto guard = co_await data.mutex.lock_shared();
        const auto seen = data.value;
        co_await hop(random);
        if (data.value != seen) throw std::logic_error("a writer among readers");
      }
    }
  }
}

struct counted {
  explicit counted(const asio::any_io_executor& executor) : semaphore(executor, 3) {}
  async_semaphore semaphore;
  std::atomic<int> inside{0};
};

asio::awaitable<void> use_permits(counted& data, unsigned seed, int rounds) {
  std::mt19937 random(seed);
  for (int i = 0; i < rounds; ++i) {
    std::optional<async_semaphore::permit> taken;
    if (random() % 4)
      taken = co_await data.semaphore.acquire();
    else
      taken = data.semaphore.try_acquire();
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
  explicit shared_cell(const asio::any_io_executor& executor) : cell(executor) {}
  async_once_cell<int> cell;
  int running = 0;  // unsynchronized: initialisers never overlap
  int runs = 0;
  unsigned seed = 0;
  std::atomic<int> failures{0};

  asio::awaitable<int> make() {
    std::mt19937 random(seed + static_cast<unsigned>(++runs));
    if (++running != 1) throw std::logic_error("two initialisers at once");
    struct leaving {
      int& count;
      ~leaving() { --count; }
    } const left{running};
    co_await hop(random);
    if (random() % 3 == 0) {
      ++failures;
      throw boost::system::system_error(make_error_code(roster::errc::bad_model));
    }
    co_await hop(random);
    co_return 7;
  }
};

asio::awaitable<void> use_cell(shared_cell& data, unsigned seed) {
  std::mt19937 random(seed);
  const auto initialise = [&data] { return data.make(); };
  for (;;) {
    co_await hop(random);
    try {
      const auto value = co_await data.cell.get_or_init(initialise);
      if (*value != 7 || value.get() != data.cell.try_get()) throw std::logic_error("another value");
      co_return;
    } catch (const boost::system::system_error& failure) {
      if (failure.code() != roster::errc::bad_model) throw;
    }
  }
}

template <typename Body>
void run_actors(unsigned seed, bool cancels, tally& outcomes, Body body) {
  asio::thread_pool pool{threads};
  std::vector<std::unique_ptr<actor>> actors;
  std::mt19937 random(seed);
  for (std::size_t i = 0; i < coroutines; ++i) {
    actors.push_back(std::make_unique<actor>(pool.get_executor()));
    actors.back()->start(body(static_cast<unsigned>(random())), outcomes);
  }
  if (cancels)
    for (const auto& each : actors) {
      if (random() % 2) each->cancel();
      if (random() % 4 == 0) std::this_thread::yield();
    }
  pool.join();
}

}  // namespace

TEST_CASE("readers and writers on several threads exclude each other", "[lock][stress][b1][b2]") {
  const auto seed = GENERATE(1U, 2U, 3U);
  CAPTURE(seed);
  asio::io_context home;
  auto work = asio::make_work_guard(home);
  std::thread strands([&] { home.run(); });
  locked_data data(home.get_executor());
  tally outcomes;
  run_actors(seed, false, outcomes, [&](unsigned each) { return use_lock(data, each, 300); });
  work.reset();
  strands.join();
  CHECK(outcomes.succeeded == static_cast<int>(coroutines));
  CHECK(data.value == data.writes);
  CHECK(data.mutex.try_lock());
}

TEST_CASE("cancelled lockers on several threads lose no wake-up", "[lock][stress][b1][b6]") {
  const auto seed = GENERATE(1U, 2U, 3U, 4U, 5U, 6U, 7U, 8U);
  CAPTURE(seed);
  asio::io_context home;
  auto work = asio::make_work_guard(home);
  std::thread strands([&] { home.run(); });
  locked_data data(home.get_executor());
  tally outcomes;
  run_actors(seed, true, outcomes, [&](unsigned each) { return use_lock(data, each, 30); });
  work.reset();
  strands.join();
  CHECK(outcomes.total() == static_cast<int>(coroutines));
  CHECK(outcomes.wrong == 0);
  CHECK(data.value == data.writes);
  CHECK(data.mutex.try_lock());
}

TEST_CASE("a semaphore on several threads never gives more permits than it has, and gets all back",
          "[semaphore][stress][b1][b6]") {
  const auto seed = GENERATE(1U, 2U, 3U, 4U);
  const bool cancels = GENERATE(false, true);
  CAPTURE(seed, cancels);
  asio::io_context home;
  counted data(home.get_executor());
  tally outcomes;
  run_actors(seed, cancels, outcomes, [&](unsigned each) { return use_permits(data, each, 100); });
  CHECK(outcomes.total() == static_cast<int>(coroutines));
  CHECK(outcomes.wrong == 0);
  CHECK(data.semaphore.available() == 3);
}

TEST_CASE("a cell on several threads runs one initialiser at a time until one succeeds", "[cell][stress][b8][b9]") {
  const auto seed = GENERATE(range(1U, 21U));
  const bool cancels = GENERATE(false, true);
  CAPTURE(seed, cancels);
  tally outcomes;
  asio::io_context home;
  auto work = asio::make_work_guard(home);
  std::thread flights([&] { home.run(); });
  {
    shared_cell data(home.get_executor());
    data.seed = seed;
    run_actors(seed, cancels, outcomes, [&](unsigned each) { return use_cell(data, each); });
    work.reset();
    flights.join();
    CHECK(data.runs <= data.failures + 1 + (cancels ? static_cast<int>(coroutines) : 0));
    CHECK(data.running == 0);
  }
  CHECK(outcomes.total() == static_cast<int>(coroutines));
  CHECK(outcomes.wrong == 0);
  if (!cancels) CHECK(outcomes.aborted == 0);
}
