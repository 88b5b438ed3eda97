#include "tests/faults/scenario.hpp"

#include <roster/sync/once_cell.hpp>
#include <roster/sync/semaphore.hpp>
#include <roster/sync/shared_mutex.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>

#include <optional>
#include <stdexcept>
#include <utility>

namespace asio = boost::asio;
using test::memory::allowed;
using test::memory::check;
using test::memory::each_fails;
using test::memory::scenario;

namespace {

template <bool Shared>
struct free_lock : scenario {
  roster::async_shared_mutex mutex{loop};
  void attempt() {
    call([&](auto handler) {
      if constexpr (Shared)
        mutex.async_lock_shared(std::move(handler));
      else
        mutex.async_lock(std::move(handler));
    });
    if (!mutex.try_lock()) throw std::logic_error("still locked");
  }
};

struct free_lock_coroutine : scenario {
  roster::async_shared_mutex mutex{loop};
  void attempt() {
    run(use(mutex));
    if (!mutex.try_lock()) throw std::logic_error("still locked");
  }
  static asio::awaitable<void> use(roster::async_shared_mutex& mutex) {
    { const auto guard = co_await mutex.lock_shared(); }
    auto guard = co_await mutex.lock();
    const auto shared = std::move(guard).downgrade();
  }
};

struct nothing_to_wait_for : scenario {
  roster::async_shared_mutex mutex{loop};
  roster::async_semaphore semaphore{loop, 1};
  void attempt() {
    { const auto guard = mutex.try_lock_shared(); }
    {
      auto guard = mutex.try_lock();
      const auto shared = std::move(*guard).downgrade();
      if (mutex.try_lock()) throw std::logic_error("locked twice");
    }
    const auto permit = semaphore.try_acquire();
    if (semaphore.try_acquire()) throw std::logic_error("one permit too many");
  }
};

template <bool Shared>
struct held_lock : scenario {
  roster::async_shared_mutex mutex{loop};
  void attempt() {
    auto holder = mutex.try_lock();
    if (!holder) throw std::logic_error("still locked");
    call(
        [&](auto handler) {
          if constexpr (Shared)
            mutex.async_lock_shared(std::move(handler));
          else
            mutex.async_lock(std::move(handler));
        },
        [&] { holder.reset(); });
    test::drain(loop);
  }
};

struct downgraded_lock : scenario {
  roster::async_shared_mutex mutex{loop};
  void attempt() {
    auto holder = mutex.try_lock();
    if (!holder) throw std::logic_error("still locked");
    roster::async_shared_mutex::shared_guard shared;
    call([&](auto handler) { mutex.async_lock_shared(std::move(handler)); }, [&] { shared = std::move(*holder).downgrade(); });
  }
};

struct held_lock_coroutine : scenario {
  roster::async_shared_mutex mutex{loop};
  void attempt() {
    auto holder = mutex.try_lock();
    if (!holder) throw std::logic_error("still locked");
    auto waiting = test::spawn(loop, free_lock_coroutine::use(mutex));
    step();
    holder.reset();
    drive([&] { return waiting.done(); });
    if (waiting.failure()) std::rethrow_exception(waiting.failure());
  }
};

struct cancelled_lock : scenario {
  roster::async_shared_mutex mutex{loop};
  void attempt() {
    const auto holder = mutex.try_lock();
    if (!holder) throw std::logic_error("still locked");
    asio::cancellation_signal signal;
    ended end;
    mutex.async_lock(asio::bind_cancellation_slot(signal.slot(), end.handler()));
    signal.emit(asio::cancellation_type::terminal);
    drive([&] { return end.done; });
  }
};

struct free_permit : scenario {
  roster::async_semaphore semaphore{loop, 1};
  void attempt() {
    call([&](auto handler) { semaphore.async_acquire(std::move(handler)); });
  }
  bool as_it_was(bool) { return semaphore.available() == 1; }
};

struct taken_permit : scenario {
  roster::async_semaphore semaphore{loop, 1};
  void attempt() {
    auto taken = semaphore.try_acquire();
    call([&](auto handler) { semaphore.async_acquire(std::move(handler)); }, [&] { taken.reset(); });
  }
  bool as_it_was(bool) { return semaphore.available() == 1; }
};

/// Starts to wait, and no more: what a failure in here does is the initiation's business.
struct permit_initiation : scenario {
  roster::async_semaphore semaphore{loop, 1};
  void attempt() {
    auto taken = semaphore.try_acquire();
    ended end;
    asio::cancellation_signal signal;
    semaphore.async_acquire(
        asio::bind_executor(loop.get_executor(), asio::bind_cancellation_slot(signal.slot(), end.handler())));
    const auto left = test::memory::left.exchange(-1);
    taken.reset();
    drive([&] { return end.done; });
    test::memory::left = left;
  }
  bool as_it_was(bool) { return semaphore.available() == 1; }
};

struct permit_coroutine : scenario {
  roster::async_semaphore semaphore{loop, 1};
  void attempt() {
    auto taken = semaphore.try_acquire();
    auto waiting = test::spawn(loop, semaphore.acquire());
    step();
    taken.reset();
    drive([&] { return waiting.done(); });
    if (waiting.failure()) std::rethrow_exception(waiting.failure());
  }
};

asio::awaitable<int> seven() {
  co_return 7;
}

struct cell : scenario {
  std::optional<roster::async_once_cell<int>> values{std::in_place, loop};
  void attempt() {
    const auto value = run(values->get_or_init(seven));
    if (*value != 7 || *values->try_get() != 7) throw std::logic_error("another value");
  }
};

struct cell_token : scenario {
  roster::async_once_cell<int> values{loop};
  void attempt() {
    call([&](auto handler) { values.async_get_or_init(seven, std::move(handler)); });
  }
};

struct full_cell : scenario {
  roster::async_once_cell<int> values{loop};
  full_cell() { run(values.get_or_init(seven)); }
  void attempt() { run(values.get_or_init(seven)); }
};

}  // namespace

TEST_CASE("A lock, a semaphore and a cell that are free survive any failed allocation, or refuse") {
  const auto seen = each_fails<nothing_to_wait_for>();
  CHECK(seen.wrong == "");
  CHECK(seen.points == 0);  // those that never wait take no memory
  check<free_lock<false>>("async_lock, free", allowed::nothing);
  check<free_lock<true>>("async_lock_shared, free", allowed::nothing);
  check<free_lock_coroutine>("lock, free", allowed::escape);
  check<free_permit>("async_acquire, free", allowed::nothing);
  check<full_cell>("get_or_init, ready", allowed::escape);
}

TEST_CASE("A wait for a permit that cannot be begun leaves the semaphore as it was") {
  check<permit_initiation>("async_acquire, its start", allowed::nothing);
}

TEST_CASE("Waiting for a lock, a permit or a value never leaks and never hangs, whichever allocation fails") {
  check<held_lock<false>>("async_lock, held", allowed::termination);
  check<held_lock<true>>("async_lock_shared, held", allowed::termination);
  check<downgraded_lock>("async_lock_shared, downgraded", allowed::termination);
  check<cancelled_lock>("async_lock, cancelled", allowed::termination);
  check<held_lock_coroutine>("lock, held", allowed::both);
  check<taken_permit>("async_acquire, taken", allowed::termination);
  check<permit_coroutine>("acquire, taken", allowed::both);
  check<cell>("get_or_init", allowed::both);
  check<cell_token>("async_get_or_init", allowed::termination);
}
