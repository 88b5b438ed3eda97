#include <roster/exec/blocking_pool.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/stress.hpp"

#include <atomic>
#include <optional>
#include <random>
#include <thread>

namespace asio = boost::asio;
using roster::blocking_pool;
using roster::call_options;
using roster::errc;
using roster::run_context;

namespace {

struct pool_tally {
  std::atomic<int> started{0}, succeeded{0}, aborted{0}, stopped{0}, refused{0}, failed{0}, other{0};
  int completed() const { return succeeded + aborted + stopped + refused + failed + other; }

  void note(const std::exception_ptr& failure) {
    if (!failure) {
      ++succeeded;
      return;
    }
    try {
      std::rethrow_exception(failure);
    } catch (const boost::system::system_error& e) {
      if (e.code() == asio::error::operation_aborted)
        ++aborted;
      else if (e.code() == errc::stopped)
        ++stopped;
      else if (e.code() == errc::queue_full)
        ++refused;
      else
        ++other;
    } catch (int) {
      ++failed;
    }
  }
};

/// Slow, failing, deaf or obedient, as `kind` says.
void compute(run_context& context, unsigned kind, std::atomic<int>* inside) {
  ++*inside;
  const unsigned steps = kind % 7 == 0 ? 100 : kind % 5;
  for (unsigned i = 0; i < steps && (kind % 3 == 0 || !context.stop_requested()); ++i)
    std::this_thread::yield();
  --*inside;
  if (kind % 5 == 0) throw 5;
}

// Not a coroutine: by the time its result is awaited the pool may be gone.
asio::awaitable<void> call(blocking_pool& pool, unsigned kind, std::atomic<int>* inside) {
  switch (kind % 4) {
    case 0:
      return pool.try_run(compute, kind, inside);
    case 1:
      return pool.run_detachable(call_options(), compute, kind, inside);
    default:
      return pool.run(compute, kind, inside);
  }
}

}  // namespace

TEST_CASE("Under random calls, cancellations and stops every call completes once and all counters return to zero",
          "[b12][b13][b14][b47][stress]") {
  test::stress([](std::uint32_t seed) {
    std::mt19937 random(seed);
    for (int round = 0; round < 30; ++round) {
      const auto threads = 1 + random() % 3;
      const auto limit = random() % 4;
      test::looped_coroutines callers(random);
      std::optional<blocking_pool> pool(std::in_place, threads, limit);
      std::atomic<int> inside{0};
      pool_tally counts;
      const int calls = 120;

      for (int i = 0; i < calls; ++i) {
        callers.spawn(call(*pool, static_cast<unsigned>(random()), &inside),
                      [&counts](const std::exception_ptr& failure) { counts.note(failure); });
        if (random() % 2) callers.cancel_one();
        if (random() % 16 == 0) callers.stop_or_resume();
        if (random() % 16 == 0) std::this_thread::yield();
      }
      const bool stop_early = random() % 2;
      if (stop_early) pool->async_stop([](roster::error_code) {});
      if (random() % 2) {
        callers.join();
        CHECK(pool->queued() + pool->waiting() == 0);
        pool.reset();
      } else {
        pool.reset();
        callers.join();
      }
      REQUIRE(inside == 0);
      REQUIRE(counts.completed() == calls);
      REQUIRE(counts.other == 0);
    }
  });
}
