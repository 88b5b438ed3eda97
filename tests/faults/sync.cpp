#include "tests/faults/scenario.hpp"

#include <roster/sync/once_cell.hpp>
#include <roster/sync/semaphore.hpp>
#include <roster/sync/shared_mutex.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>

#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

namespace asio = boost::asio;
using test::memory::allowed;
using test::memory::check;
using test::memory::construction;
using test::memory::each_fails;
using test::memory::scenario;

namespace {

const auto aborted = asio::error::operation_aborted;

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

template <bool Shared>
struct section : scenario {
  roster::async_shared_mutex mutex{loop};
  int runs = 0;
  void attempt() {
    runs = 0;
    auto holder = mutex.try_lock();
    if (!holder) throw std::logic_error("still locked");
    call(
        [&](auto handler) {
          const auto count = [this] { ++runs; };
          if constexpr (Shared)
            mutex.async_run_shared(count, std::move(handler));
          else
            mutex.async_run(count, std::move(handler));
        },
        [&] { holder.reset(); });
    test::drain(loop);
  }
  bool as_it_was(bool) { return runs <= 1; }
};

struct section_coroutine : scenario {
  roster::async_shared_mutex mutex{loop};
  void attempt() {
    auto holder = mutex.try_lock();
    if (!holder) throw std::logic_error("still locked");
    auto waiting = test::spawn(loop, use(mutex));
    step();
    holder.reset();
    drive([&] { return waiting.done(); });
    if (waiting.failure()) std::rethrow_exception(waiting.failure());
  }
  static asio::awaitable<void> use(roster::async_shared_mutex& mutex) {
    const auto seven = [] { return 7; };
    if (co_await mutex.run(seven) != 7) throw std::logic_error("not its result");
    if (co_await mutex.run_shared(seven) != 7) throw std::logic_error("not its result");
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
    cancel([&](auto handler) { mutex.async_lock(std::move(handler)); });
  }
};

struct destroyed_lock : scenario {
  void attempt() {
    std::optional<roster::async_shared_mutex> mutex(std::in_place, loop);
    const auto holder = mutex->try_lock();
    fail(
        aborted, [&](auto handler) { mutex->async_lock(std::move(handler)); }, [&] { mutex.reset(); });
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
    drive([&] { return end.done(); });
    test::memory::left = left;
  }
  bool as_it_was(bool) { return semaphore.available() == 1; }
};

struct cancelled_permit : scenario {
  roster::async_semaphore semaphore{loop, 1};
  void attempt() {
    const auto taken = semaphore.try_acquire();
    cancel([&](auto handler) { semaphore.async_acquire(std::move(handler)); });
  }
  bool as_it_was(bool) { return semaphore.available() == 1; }
};

struct destroyed_semaphore : scenario {
  void attempt() {
    std::optional<roster::async_semaphore> semaphore(std::in_place, loop, 0);
    fail(
        aborted, [&](auto handler) { semaphore->async_acquire(std::move(handler)); }, [&] { semaphore.reset(); });
  }
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

struct full_cell_token : full_cell {
  void attempt() {
    call([&](auto handler) { values.async_get_or_init(seven, std::move(handler)); });
  }
};

struct cell_arguments : scenario {
  roster::async_once_cell<std::string> values{loop};
  void attempt() {
    const std::string text(100, 'x');
    if (*run(values.get_or_init(twice, text)) != text + text) throw std::logic_error("another value");
  }
  static asio::awaitable<std::string> twice(std::string text) { co_return text + text; }
};

struct cell_failure : scenario {
  roster::async_once_cell<int> values{loop};
  void attempt() {
    fail(roster::errc::bad_model, [&](auto handler) { values.async_get_or_init(fails, std::move(handler)); });
  }
  bool as_it_was(bool) { return !values.try_get(); }
  static asio::awaitable<int> fails() {
    throw roster::error(roster::errc::bad_model, "the initialiser has failed");
    co_return 0;
  }
};

/// Its initialiser waits, and not for the loop: Asio's own operations could not always come back to a flight's strand.
struct waiting_cell : scenario {
  roster::async_semaphore never{loop, 0};
  std::optional<roster::async_once_cell<int>> values;
  bool started = false;

  auto get() {
    if (!values) values.emplace(loop);
    started = false;
    return [this](auto handler) {
      const auto wait = [this] { return wait_for(never, started); };
      values->async_get_or_init(wait, std::move(handler));
    };
  }
  static asio::awaitable<int> wait_for(roster::async_semaphore& permits, bool& started) {
    started = true;
    const auto permit = co_await permits.acquire();
    co_return 7;
  }
};

struct cancelled_cell : waiting_cell {
  void attempt() {
    cancel(get(), [&] { return started; });
    test::drain(loop);  // the initialiser is told as well
  }
  bool as_it_was(bool) { return !values || !values->try_get(); }
};

struct destroyed_cell : waiting_cell {
  void attempt() {
    fail(
        aborted, get(), [&] { values.reset(); }, [&] { return started; });
    test::drain(loop);
  }
};

}  // namespace

TEST_CASE("A lock, a semaphore or a cell that cannot be made leaves nothing behind") {
  check<construction<roster::async_shared_mutex>>("async_shared_mutex", allowed::nothing);
  check<construction<roster::async_semaphore, std::size_t{1}>>("async_semaphore", allowed::nothing);
  check<construction<roster::async_once_cell<int>>>("async_once_cell", allowed::nothing);
}

TEST_CASE("A lock, a semaphore and a cell that are free survive any failed allocation, or refuse") {
  const auto seen = each_fails<nothing_to_wait_for>();
  CHECK(seen.wrong == "");
  CHECK(seen.points == 0);  // those that never wait take no memory
  check<free_lock<false>>("async_lock, free", allowed::nothing);
  check<free_lock<true>>("async_lock_shared, free", allowed::nothing);
  check<free_lock_coroutine>("lock, free", allowed::escape);
  check<free_permit>("async_acquire, free", allowed::nothing);
  check<full_cell>("get_or_init, ready", allowed::escape);
  check<full_cell_token>("async_get_or_init, ready", allowed::nothing);
}

TEST_CASE("A wait for a permit that cannot be begun leaves the semaphore as it was") {
  check<permit_initiation>("async_acquire, its start", allowed::nothing);
}

TEST_CASE("Waiting for a lock, a permit or a value never leaks and never hangs, whichever allocation fails") {
  check<held_lock<false>>("async_lock, held", allowed::nothing);
  check<held_lock<true>>("async_lock_shared, held", allowed::nothing);
  check<downgraded_lock>("async_lock_shared, downgraded", allowed::nothing);
  check<held_lock_coroutine>("lock, held", allowed::escape);
  check<section<false>>("async_run", allowed::nothing);
  check<section<true>>("async_run_shared", allowed::nothing);
  check<section_coroutine>("run", allowed::escape);
  check<taken_permit>("async_acquire, taken", allowed::nothing);
  check<permit_coroutine>("acquire, taken", allowed::escape);
  check<cell>("get_or_init", allowed::both);
  check<cell_arguments>("get_or_init, with arguments", allowed::both);
  check<cell_token>("async_get_or_init", allowed::termination);
  check<cell_failure>("async_get_or_init, fails", allowed::termination);
}

TEST_CASE("A cancelled wait for a lock, a permit or a value leaves no trace, whichever allocation fails") {
  check<cancelled_lock>("async_lock", allowed::nothing);
  check<cancelled_permit>("async_acquire", allowed::nothing);
  check<cancelled_cell>("async_get_or_init", allowed::termination);
}

TEST_CASE("Whoever waits for a lock, a permit or a value that is destroyed is told, whichever allocation fails") {
  check<destroyed_lock>("async_shared_mutex", allowed::nothing);
  check<destroyed_semaphore>("async_semaphore", allowed::nothing);
  check<destroyed_cell>("async_once_cell", allowed::termination);
}
