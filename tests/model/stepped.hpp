#pragma once

// What roster takes from <atomic>, <mutex> and <condition_variable>, with a point of the explorer before each operation, and
// the parts of roster that are explored, compiled against it. All sources of this test program include these parts from here.

#include "tests/model/explorer.hpp"

#include <roster/call/call_options.hpp>
#include <roster/detail/asio.hpp>
#include <roster/detail/context_bound.hpp>
#include <roster/detail/pending_handler.hpp>
#include <roster/detail/shared_queue.hpp>
#include <roster/detail/yield_until.hpp>
#include <roster/error.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace test::model {

/// Plain, because one actor moves at a time. A weak exchange does not fail spuriously.
template <typename T>
class stepped_atomic {
 public:
  stepped_atomic(T value = T()) noexcept : value_(value) {}  // NOLINT: as std::atomic
  stepped_atomic(const stepped_atomic&) = delete;
  stepped_atomic& operator=(const stepped_atomic&) = delete;

  T load(std::memory_order = std::memory_order_seq_cst) const noexcept {
    point();
    return value_;
  }
  void store(T value, std::memory_order = std::memory_order_seq_cst) noexcept { exchange(value); }
  T exchange(T value, std::memory_order = std::memory_order_seq_cst) noexcept {
    point();
    return std::exchange(value_, value);
  }
  bool compare_exchange_weak(T& expected, T value, std::memory_order, std::memory_order) noexcept {
    point();
    if (value_ != expected) {
      expected = value_;
      return false;
    }
    value_ = value;
    return true;
  }
  T fetch_add(T by, std::memory_order) noexcept {
    return exchange_with([by](T old) { return old + by; });
  }
  T fetch_sub(T by, std::memory_order) noexcept {
    return exchange_with([by](T old) { return old - by; });
  }
  T fetch_and(T by, std::memory_order) noexcept {
    return exchange_with([by](T old) { return old & by; });
  }
  T fetch_or(T by, std::memory_order) noexcept {
    return exchange_with([by](T old) { return old | by; });
  }

 private:
  template <typename F>
  T exchange_with(F change) noexcept {
    point();
    return std::exchange(value_, change(value_));
  }

  T value_;
};

class stepped_mutex {
 public:
  stepped_mutex() = default;
  stepped_mutex(const stepped_mutex&) = delete;
  stepped_mutex& operator=(const stepped_mutex&) = delete;

  void lock() {
    if (auto* explorer = explorer::current()) explorer->point([this] { return !held_; });
    ensure(!held_, "a mutex is free when it is taken");
    held_ = true;
  }
  void unlock() noexcept { held_ = false; }

 private:
  bool held_ = false;
};

/// Wakes whom it must; no spurious wake-ups, which could only hide that one is lost.
class stepped_condition_variable {
 public:
  template <typename Lock>
  void wait(Lock& lock) {
    point();  // what is done now by somebody who does not hold the mutex goes unseen
    bool woken = false;
    sleepers_.push_back(&woken);
    lock.unlock();
    await([&woken] { return woken; });
    lock.lock();
  }

  template <typename Lock, typename Predicate>
  void wait(Lock& lock, Predicate done) {
    while (!done())
      wait(lock);
  }

  /// Nobody waits so long: a model's time stands still.
  template <typename Lock, typename Duration>
  void wait_for(Lock& lock, Duration) {
    wait(lock);
  }

  void notify_one() {
    point();
    if (sleepers_.empty()) return;
    auto* explorer = explorer::current();
    wake(explorer ? explorer->pick(sleepers_.size()) : 0);
  }

  void notify_all() {
    point();
    while (!sleepers_.empty())
      wake(0);
  }

 private:
  void wake(std::size_t index) {
    *sleepers_[index] = true;
    sleepers_.erase(sleepers_.begin() + static_cast<std::ptrdiff_t>(index));
  }

  std::vector<bool*> sleepers_;
};

}  // namespace test::model

namespace std {
using test::model::stepped_atomic;
using test::model::stepped_condition_variable;
using test::model::stepped_mutex;
}  // namespace std

namespace roster::detail {
/// One look stands for many.
template <typename Predicate>
bool look_once(int, Predicate done) {
  return done();
}
}  // namespace roster::detail

#define yield_until look_once
#define atomic stepped_atomic
#define mutex stepped_mutex
#define condition_variable stepped_condition_variable
#include <roster/exec/detail/channel.hpp>
#include <roster/exec/detail/task_queue.hpp>  // and with it run_context.hpp
#include <roster/sync/detail/cell_state.hpp>
#include <roster/sync/detail/lock_state.hpp>
#undef yield_until
#undef atomic
#undef mutex
#undef condition_variable
