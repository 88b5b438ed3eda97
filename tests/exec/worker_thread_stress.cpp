#include <roster/exec/worker_thread.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/stress.hpp"

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <system_error>
#include <thread>

namespace asio = boost::asio;
using roster::call_options;
using roster::device;
using roster::errc;
using roster::run_context;
using roster::worker_thread;

namespace {

std::atomic<int> alive{0};
std::atomic<unsigned> attempts{0};

void fail_now_and_then() {
  if (++attempts % 5 == 0) throw std::system_error(EAGAIN, std::generic_category());
}

/// Notices when it is used by two threads, or on the wrong one.
class checked_model {
 public:
  checked_model() : home_(std::this_thread::get_id()) { ++alive; }
  checked_model(const checked_model&) = delete;
  checked_model& operator=(const checked_model&) = delete;
  ~checked_model() {
    if (home_ == std::this_thread::get_id()) --alive;
  }

  void use(run_context& context, unsigned kind) {
    if (home_ != std::this_thread::get_id() || busy_) throw std::logic_error("used by two threads");
    busy_ = true;
    const unsigned steps = kind % 7 == 0 ? 100 : kind % 5;
    for (unsigned i = 0; i < steps && (kind % 3 == 0 || !context.stop_requested()); ++i)
      std::this_thread::yield();
    busy_ = false;
    if (kind % 5 == 0) throw 5;
  }

 private:
  std::thread::id home_;
  bool busy_ = false;
};

using checked_worker = worker_thread<checked_model>;

void use_model(checked_model& m, run_context& context, unsigned kind) {
  m.use(context, kind);
}

struct worker_tally {
  std::atomic<int> succeeded{0}, aborted{0}, stopped{0}, failed{0}, elsewhere{0}, no_thread{0}, wrong{0};
  int completed() const { return succeeded + aborted + stopped + failed + elsewhere + no_thread + wrong; }

  void note(const std::exception_ptr& failure) {
    if (!failure) return void(++succeeded);
    // Callers that wait for one start share one exception, which must not be rethrown on several threads at once.
    static std::mutex rethrowing;
    std::lock_guard lock(rethrowing);
    try {
      std::rethrow_exception(failure);
    } catch (const boost::system::system_error& e) {
      ++(e.code() == asio::error::operation_aborted ? aborted
         : e.code() == errc::stopped                ? stopped
         : e.code() == errc::device_mismatch        ? elsewhere
                                                    : wrong);
    } catch (const std::system_error&) {
      ++no_thread;
    } catch (int) {
      ++failed;
    } catch (...) {
      ++wrong;
    }
  }
};

// Not a coroutine: by the time its result is awaited the worker may be gone.
asio::awaitable<void> call(checked_worker& worker, unsigned kind) {
  call_options options;
  if (kind % 11 == 0) options.on(kind % 2 ? "cpu" : "cuda:0");
  switch (kind % 8) {
    case 0:
      return worker.start();
    case 1:
    case 2:
      return worker.run_detachable(options, use_model, kind);
    default:
      return worker.run(options, use_model, kind);
  }
}

}  // namespace

TEST_CASE("Under random calls, failing starts, cancellations and shutdowns every call completes once, and no state survives",
          "[b14][b16][b17][b19][b47][stress]") {
  roster::detail::before_thread_creation = fail_now_and_then;
  test::stress([](std::uint32_t seed) {
    std::mt19937 random(seed);
    alive = 0;
    attempts = 0;
    for (int round = 0; round < 50; ++round) {
      test::looped_coroutines callers(random);
      auto loads = std::make_shared<std::atomic<unsigned>>(static_cast<unsigned>(random() % 3));
      std::optional<checked_worker> worker(
          std::in_place, callers.executor(),
          [=] {
            if (++*loads % 3 == 0) throw 6;
            return checked_model();
          },
          device("cpu"), random() % 4);
      worker_tally counts;
      const int calls = 80;
      for (int i = 0; i < calls; ++i) {
        callers.spawn(call(*worker, static_cast<unsigned>(random())),
                      [&counts](const std::exception_ptr& failure) { counts.note(failure); });
        if (random() % 3 == 0) callers.cancel_one();
        if (random() % 16 == 0) callers.stop_or_resume();
        if (random() % 16 == 0) std::this_thread::yield();
      }
      for (auto stops = random() % 3; stops > 0; --stops) {
        callers.spawn(worker->stop(), [](const std::exception_ptr&) {});
        if (random() % 2) callers.cancel_one();
      }
      if (random() % 3) {
        callers.join();
        CHECK(worker->depth() <= 1);  // detached work
        worker.reset();
      } else {
        worker.reset();
        callers.join();
      }
      REQUIRE(alive == 0);
      REQUIRE(counts.completed() == calls);
      REQUIRE(counts.wrong == 0);
    }
  });
  roster::detail::before_thread_creation = nullptr;
}
