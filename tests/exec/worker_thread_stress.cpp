#include <roster/exec/worker_thread.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/exec.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

#include <atomic>
#include <memory>
#include <optional>
#include <random>
#include <system_error>
#include <thread>
#include <vector>

namespace asio = boost::asio;
using roster::call_options;
using roster::device;
using roster::errc;
using roster::run_context;
using roster::worker_thread;

namespace {

std::atomic<int> alive{0};
std::atomic<unsigned> creations{0};

void fail_now_and_then() {
  if (++creations % 5 == 0) throw std::system_error(EAGAIN, std::generic_category());
}

/// Notices when it is used by two threads, or on the wrong one.
class model {
 public:
  model() : home_(std::this_thread::get_id()) { ++alive; }
  model(const model&) = delete;
  model& operator=(const model&) = delete;
  ~model() {
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

using worker_type = worker_thread<model>;

void use(model& m, run_context& context, unsigned kind) {
  m.use(context, kind);
}

struct tally {
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

struct client {
  explicit client(asio::any_io_executor where) : strand(asio::make_strand(std::move(where))) {}
  asio::strand<asio::any_io_executor> strand;
  asio::cancellation_signal signal;
};

// Not a coroutine: by the time its result is awaited the worker may be gone.
asio::awaitable<void> call(worker_type& worker, unsigned kind) {
  call_options options;
  if (kind % 11 == 0) options.on(kind % 2 ? "cpu" : "cuda:0");
  switch (kind % 8) {
    case 0:
      return worker.start();
    case 1:
    case 2:
      return worker.run_detachable(options, use, kind);
    default:
      return worker.run(options, use, kind);
  }
}

}  // namespace

TEST_CASE("Under random calls, failing starts, cancellations and shutdowns every call completes once, and no state survives",
          "[b14][b16][b17][b19][b47][stress]") {
  const auto seed = test::stress_seed();
  INFO("ROSTER_SEED=" << seed);
  std::mt19937 random(seed);
  alive = 0;
  roster::detail::before_thread_creation = fail_now_and_then;

  for (int round = 0; round < 50; ++round) {
    asio::thread_pool callers(2);
    auto loads = std::make_shared<std::atomic<unsigned>>(static_cast<unsigned>(random() % 3));
    std::optional<worker_type> worker(
        std::in_place, callers.get_executor(),
        [=] {
          if (++*loads % 3 == 0) throw 6;
          return model();
        },
        device("cpu"), random() % 4);
    std::vector<std::unique_ptr<client>> clients;
    tally counts;
    const int calls = 80;
    for (int i = 0; i < calls; ++i) {
      auto& each = *clients.emplace_back(std::make_unique<client>(callers.get_executor()));
      auto done = [&counts](std::exception_ptr failure) { counts.note(failure); };
      asio::co_spawn(each.strand, call(*worker, static_cast<unsigned>(random())),
                     asio::bind_cancellation_slot(each.signal.slot(), asio::bind_executor(each.strand, done)));
      if (random() % 3 == 0) {
        auto& victim = *clients[random() % clients.size()];
        asio::post(victim.strand, [&victim] { victim.signal.emit(asio::cancellation_type::terminal); });
      }
      if (random() % 16 == 0) std::this_thread::yield();
    }
    for (auto stops = random() % 3; stops > 0; --stops) {
      auto& stopper = *clients.emplace_back(std::make_unique<client>(callers.get_executor()));
      asio::co_spawn(stopper.strand, worker->stop(),
                     asio::bind_cancellation_slot(stopper.signal.slot(), [](std::exception_ptr) {}));
      if (random() % 2) asio::post(stopper.strand, [&stopper] { stopper.signal.emit(asio::cancellation_type::terminal); });
    }
    switch (random() % 3) {
      case 0:
        callers.join();
        CHECK(worker->depth() <= 1);  // detached work
        worker.reset();
        break;
      case 1:
        worker.reset();
        callers.join();
        break;
      default:
        callers.join();
        worker.reset();
        break;
    }
    REQUIRE(alive == 0);
    REQUIRE(counts.completed() == calls);
    REQUIRE(counts.wrong == 0);
  }
  roster::detail::before_thread_creation = nullptr;
}
