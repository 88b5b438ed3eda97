#include <roster/exec/stream.hpp>
#include <roster/exec/worker_thread.hpp>

#include "tests/exec/stream_engine.hpp"
#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/stress.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#include <atomic>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <vector>

namespace asio = boost::asio;
using roster::call_options;
using roster::errc;
using roster::run_context;
using roster::sink;
using roster::stream;
using roster::worker_thread;
using test::engine;
using test::make_engine;

namespace {

using worker_type = worker_thread<engine>;

/// A consumer that waits for the next chunk, and is torn from its wait again and again.
class impatient : public std::enable_shared_from_this<impatient> {
 public:
  impatient(asio::any_io_executor executor, stream<int> from, unsigned seed)
      : strand_(asio::make_strand(std::move(executor))), from_(std::move(from)), random_(seed) {}

  std::future<int> start() {
    asio::post(strand_, [self = shared_from_this()] { self->next(); });
    return result_.get_future();
  }

 private:
  void next() {
    auto handler = [self = shared_from_this()](std::exception_ptr failure, std::optional<int> chunk) {
      self->got(std::move(failure), chunk);
    };
    from_.async_next(asio::bind_cancellation_slot(signal_.slot(), asio::bind_executor(strand_, std::move(handler))));
    if (random_() % 2)
      asio::post(strand_, [self = shared_from_this()] { self->signal_.emit(asio::cancellation_type::terminal); });
  }

  void got(std::exception_ptr failure, std::optional<int> chunk) {
    if (failure ? test::code_of(failure) != asio::error::operation_aborted : chunk != expected_)
      return result_.set_value(expected_);
    if (!failure) ++expected_;
    next();
  }

  asio::strand<asio::any_io_executor> strand_;
  stream<int> from_;
  std::minstd_rand random_;
  asio::cancellation_signal signal_;
  std::promise<int> result_;
  int expected_ = 0;
};

}  // namespace

TEST_CASE("However often a consumer leaves its wait, it gets every chunk in order before the end", "[b14][b23][stress]") {
  test::stress([](std::uint32_t seed) {
    std::mt19937 random(seed);
    asio::thread_pool callers(2);
    {
      worker_type worker(callers.get_executor(), make_engine);
      for (int round = 0; round < 40; ++round) {
        const int count = 300;
        auto produce = [=](engine&, sink<int>& out, run_context&) {
          for (int i = 0; i < count; ++i) {
            out.push(i);
            if (i % 3 == 0) std::this_thread::yield();
          }
        };
        auto numbers = worker.start_stream<int>(call_options(), produce, 1 + random() % 4);
        auto consumer =
            std::make_shared<impatient>(callers.get_executor(), std::move(numbers), static_cast<unsigned>(random()));
        REQUIRE(consumer->start().get() == count);
      }
    }
    callers.join();
  });
}

namespace {

struct stream_tally {
  std::atomic<int> ended{0}, aborted{0}, stopped{0}, failed{0}, disordered{0};
  int completed() const { return ended + aborted + stopped + failed + disordered; }
};

asio::awaitable<void> consume(stream<int> from, unsigned kind, stream_tally& counts) {
  try {
    for (int expected = 0;; ++expected) {
      if (kind % 4 == 0 && expected == static_cast<int>(kind % 13)) {
        from.cancel();
        kind = 1;
      }
      if (kind % 16 == 1 && expected == 5) co_return void(++counts.ended);  // leaves early
      const auto chunk = co_await from.next();
      if (!chunk) co_return void(++counts.ended);
      if (*chunk != expected) co_return void(++counts.disordered);
    }
  } catch (const boost::system::system_error& failure) {
    ++(failure.code() == asio::error::operation_aborted ? counts.aborted : counts.stopped);
  } catch (int) {
    ++counts.failed;
  }
}

/// Long or short, failing, deaf or obedient.
auto produce(unsigned kind) {
  return [kind](engine& e, sink<int>& out, run_context& context) {
    ++e.runs;
    for (int i = 0; i < static_cast<int>(kind % 40); ++i) {
      if (kind % 3 && context.stop_requested()) return;
      context.report_progress(static_cast<std::uint32_t>(i), kind % 40);
      if (!out.push(i) && kind % 5) return;
    }
    if (kind % 7 == 0) throw 7;
  };
}

}  // namespace

TEST_CASE("Under random streams, cancellations and shutdowns every consumer is told once", "[b14][b25][b27][stress]") {
  test::stress([](std::uint32_t seed) {
    std::mt19937 random(seed);
    for (int round = 0; round < 50; ++round) {
      test::looped_coroutines callers(random);
      std::optional<worker_type> worker(std::in_place, callers.executor(), make_engine, roster::device(), random() % 4);
      stream_tally counts;
      const int calls = 40;
      std::atomic<int> done{0};
      for (int i = 0; i < calls; ++i) {
        auto numbers = worker->start_stream<int>(call_options(), produce(static_cast<unsigned>(random())), 1 + random() % 5);
        callers.spawn(consume(std::move(numbers), static_cast<unsigned>(random()), counts),
                      [&done](const std::exception_ptr&) { ++done; });
        if (random() % 4 == 0) callers.cancel_one();
        if (random() % 16 == 0) callers.stop_or_resume();
      }
      if (random() % 3 == 0) callers.spawn(worker->stop(), [](const std::exception_ptr&) {});
      if (random() % 2 == 0) {
        callers.join();
        worker.reset();
      } else {
        worker.reset();
        callers.join();
      }
      REQUIRE(done == calls);
      REQUIRE(counts.disordered == 0);
    }
  });
}
