// The reader/writer lock, uncontended and contended, and a lock that takes every acquisition through a strand.

#include "measure.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <deque>
#include <memory>

namespace bench {
namespace {

constexpr std::size_t coroutines = 8;

asio::awaitable<void> read_mostly(roster::async_shared_mutex& mutex, std::uint64_t& guarded, std::size_t times,
                                  std::uint64_t seed) {
  std::minstd_rand random(static_cast<std::uint32_t>(seed));
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < times; ++i) {
    if (random() % 10 == 0) {
      const auto guard = co_await mutex.lock();
      ++guarded;
    } else {
      const auto guard = co_await mutex.lock_shared();
      sum += guarded;
    }
  }
  keep(sum);
}

double read_mostly_on_two_threads(std::size_t times) {
  slices watch(coroutines * times);
  while (watch.next()) {
    asio::io_context loop(2);
    roster::async_shared_mutex mutex(loop);
    std::uint64_t guarded = 0;
    for (std::size_t i = 0; i < coroutines; ++i)
      asio::co_spawn(loop, read_mostly(mutex, guarded, times, i + 1), rethrow);
    run_on_threads(loop, 2);
  }
  return watch.result();
}

/// Takes the lock, lets everybody else come and wait for it, and hands it on.
asio::awaitable<void> take_turns(roster::async_shared_mutex& mutex, std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) {
    const auto guard = co_await mutex.lock();
    co_await asio::post(asio::use_awaitable);
  }
}

std::size_t turns_of_each(std::size_t waiters) {
  return std::max<std::size_t>(2, 20'000 / waiters);
}

double hand_off(std::size_t waiters) {
  const auto times = turns_of_each(waiters);
  slices watch(times * waiters, 5);
  while (watch.next()) {
    asio::io_context loop(1);
    roster::async_shared_mutex mutex(loop);
    for (std::size_t i = 0; i < waiters; ++i)
      asio::co_spawn(loop, take_turns(mutex, times), rethrow);
    loop.run();
  }
  return watch.result();
}

/// A lock whose state belongs to a strand: whoever wants it goes there.
class strand_lock {
 public:
  explicit strand_lock(asio::any_io_executor executor) : strand_(std::move(executor)) {}

  asio::awaitable<void> lock() {
    return asio::async_initiate<const asio::use_awaitable_t<>, void()>(
        []<typename Handler>(Handler handler, strand_lock* self) {
          asio::post(self->strand_, [self, handler = std::move(handler)]() mutable {
            if (self->held_) return self->waiting_.push_back(std::make_unique<waiter_of<Handler>>(std::move(handler)));
            self->held_ = true;
            resume(handler);
          });
        },
        asio::use_awaitable, this);
  }

  void unlock() {
    asio::post(strand_, [this] {
      if (waiting_.empty()) {
        held_ = false;
      } else {
        const auto next = std::move(waiting_.front());
        waiting_.pop_front();
        next->grant();
      }
    });
  }

 private:
  struct waiter {
    waiter() = default;
    waiter(const waiter&) = delete;
    waiter& operator=(const waiter&) = delete;
    virtual ~waiter() = default;
    virtual void grant() = 0;
  };

  template <typename Handler>
  struct waiter_of final : waiter {
    explicit waiter_of(Handler waiting) : handler(std::move(waiting)) {}
    void grant() override { resume(handler); }
    Handler handler;
  };

  template <typename Handler>
  static void resume(Handler& handler) {
    const auto executor = asio::get_associated_executor(handler);
    asio::post(executor, std::move(handler));
  }

  asio::strand<asio::any_io_executor> strand_;
  bool held_ = false;
  std::deque<std::unique_ptr<waiter>> waiting_;
};

asio::awaitable<void> take_turns(strand_lock& mutex, std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) {
    co_await mutex.lock();
    co_await asio::post(asio::use_awaitable);
    mutex.unlock();
  }
}

double strand_hand_off(std::size_t waiters) {
  const auto times = turns_of_each(waiters);
  slices watch(times * waiters, 5);
  while (watch.next()) {
    asio::io_context loop(1);
    strand_lock mutex(loop.get_executor());
    for (std::size_t i = 0; i < waiters; ++i)
      asio::co_spawn(loop, take_turns(mutex, times), rethrow);
    loop.run();
  }
  return watch.result();
}

/// The part of a hand-off that is not the lock's: the holder's step over the loop.
asio::awaitable<void> only_post(std::size_t times) {
  for (std::size_t i = 0; i < times; ++i)
    co_await asio::post(asio::use_awaitable);
}

double post(std::size_t waiters) {
  const auto times = turns_of_each(waiters);
  slices watch(times * waiters, 5);
  while (watch.next()) {
    asio::io_context loop(1);
    for (std::size_t i = 0; i < waiters; ++i)
      asio::co_spawn(loop, only_post(times), rethrow);
    loop.run();
  }
  return watch.result();
}

asio::awaitable<void> increment(roster::async_shared_mutex& mutex, std::uint64_t& guarded, std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) {
    const auto guard = co_await mutex.lock();
    ++guarded;
  }
}

asio::awaitable<void> increment(strand_lock& mutex, std::uint64_t& guarded, std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) {
    co_await mutex.lock();
    ++guarded;
    mutex.unlock();
  }
}

/// Writers only, on two threads, who hold the lock for an instant and want it again at once.
template <typename Lock>
double contend(std::size_t times) {
  slices watch(coroutines * times, 5);
  while (watch.next()) {
    asio::io_context loop(2);
    Lock mutex(loop.get_executor());
    std::uint64_t guarded = 0;
    for (std::size_t i = 0; i < coroutines; ++i)
      asio::co_spawn(loop, increment(mutex, guarded, times), rethrow);
    run_on_threads(loop, 2);
    if (guarded != coroutines * times) throw std::logic_error("the lock let two in");
  }
  return watch.result();
}

const measured measurements[] = {
    {"contended", contend<roster::async_shared_mutex>, 10'000}, {"strand_contended", contend<strand_lock>, 5'000},
    {"read_mostly", read_mostly_on_two_threads, 40'000},        {"hand_off", hand_off, coroutines},
    {"strand_hand_off", strand_hand_off, coroutines},           {"post", post, coroutines},
};

}  // namespace
}  // namespace bench
