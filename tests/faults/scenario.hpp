#pragma once

// Every allocation of every operation fails in turn. Each time the operation succeeds all the same, or fails as documented with
// everything as it was; nothing leaks, nothing waits for ever, and the next attempt on the same objects succeeds.
//
// Two outcomes are due to Asio. An initiation that throws inside a co_await destroys the coroutine, and the exception leaves
// the loop ("escaped"): so less is demanded of the coroutine forms than of those that take tokens. And a completion that cannot
// be posted, or whose error cannot be made, terminates, as documented at `pending_handler`. That is accepted only of operations
// that have to wait; those that are only posted to the loop need no memory for it.

#include "tests/faults/injection.hpp"

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>

#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

namespace test::memory {

/// A loop driven by hand, by which all failures can be seen.
class scenario {
  std::optional<asio::cancellation_signal> signal_;  // outlives the coroutines that `cancel` has started

 public:
  static constexpr auto nothing = [] {};
  static constexpr auto at_once = [] { return true; };

  asio::io_context loop{1};

  /// Whether a failure other than `bad_alloc` is what the documentation says.
  bool expects(const std::exception&) const { return false; }

  /// Whether everything is as it was before an attempt that may have been refused.
  bool as_it_was(bool) { return true; }

  /// Lets coroutines that are lost be destroyed.
  void settle() {
    test::drain(loop);
    lost_ = false;
  }

  /// Runs handlers until `done()`, which another thread may bring about.
  template <typename Predicate>
  void drive(Predicate done) {
    using clock = std::chrono::steady_clock;
    auto last = clock::now();
    for (int steps = 0; !done();) {
      if (steps == 10'000) throw std::logic_error("no end");
      loop.restart();
      std::size_t ran = 1;
      try {
        ran = loop.poll_one();
      } catch (const std::bad_alloc&) {
        lost_ = true;
      }
      if (ran > 0) {
        ++steps;
        last = clock::now();
      } else if (lost_ && (loop.stopped() || clock::now() - last > std::chrono::milliseconds(100))) {
        throw escaped_failure();  // what was lost may be what the others wait for
      } else if (loop.stopped()) {
        throw std::logic_error("the loop ran out of work");
      } else {
        std::this_thread::yield();
      }
    }
  }

  /// Runs a handler.
  void step() {
    drive([first = true]() mutable { return !std::exchange(first, false); });
  }

  /// Runs a coroutine to its end.
  template <typename T>
  T run(asio::awaitable<T> operation) {
    auto running = spawn(loop, std::move(operation));
    drive([&] { return running.done(); });
    if (running.failure()) std::rethrow_exception(running.failure());
    if constexpr (!std::is_void_v<T>) return std::move(running.value());
  }

  /// The end of an operation that was started with a plain callback.
  class ended {
   public:
    auto handler() {
      return [seen = seen_](auto first_result, auto... results) {
        seen->done = true;
        if constexpr (std::is_same_v<decltype(first_result), error_code>)
          seen->code = first_result;
        else
          seen->failure = std::move(first_result);
        ((void)std::move(results), ...);
      };
    }

    bool done() const { return seen_->done; }
    error_code code() const { return seen_->failure ? test::code_of(seen_->failure) : seen_->code; }
    void rethrow() const {
      if (seen_->failure) std::rethrow_exception(seen_->failure);
      if (seen_->code) throw boost::system::system_error(seen_->code);
    }

   private:
    struct outcome {
      bool done = false;
      error_code code;
      std::exception_ptr failure;
    };

    std::shared_ptr<outcome> seen_ = std::make_shared<outcome>();  // the operation may end after an attempt that gave it up
  };

  /// Starts an operation with a callback, lets `meanwhile` happen once it `waits`, and runs it to its end.
  template <typename Start, typename Meanwhile, typename Waits>
  void finish(ended& end, Start start, Meanwhile meanwhile, Waits waits) {
    start(asio::bind_executor(loop.get_executor(), end.handler()));
    drive([&] { return end.done() || waits(); });
    meanwhile();
    drive([&] { return end.done(); });
  }

  /// An operation that succeeds.
  template <typename Start, typename Meanwhile = decltype(nothing)>
  void call(Start start, Meanwhile meanwhile = nothing) {
    ended end;
    finish(end, std::move(start), std::move(meanwhile), at_once);
    end.rethrow();
  }

  /// An operation that fails with `code`.
  template <typename Start, typename Meanwhile = decltype(nothing), typename Waits = decltype(at_once)>
  void fail(error_code code, Start start, Meanwhile meanwhile = nothing, Waits waits = at_once) {
    ended end;
    finish(end, std::move(start), std::move(meanwhile), std::move(waits));
    if (end.code() == code) return;
    end.rethrow();
    throw std::logic_error("no failure");
  }

  /// An operation that is cancelled once it `waits`.
  template <typename Start, typename Waits = decltype(at_once)>
  void cancel(Start start, Waits waits = at_once) {
    signal_.emplace();
    const auto emit = [&] {
      try {
        signal_->emit(asio::cancellation_type::terminal);
      } catch (const std::bad_alloc&) {
        signal_->emit(asio::cancellation_type::terminal);  // Asio's part of it failed: nothing was cancelled
      }
    };
    fail(
        asio::error::operation_aborted,
        [&](auto handler) { start(asio::bind_cancellation_slot(signal_->slot(), std::move(handler))); }, emit,
        std::move(waits));
  }

  /// Starts a coroutine as an operation with a callback.
  template <typename Make>
  auto spawning(Make make) {
    return [this, make = std::move(make)](auto handler) { asio::co_spawn(loop, make(), std::move(handler)); };
  }

 private:
  bool lost_ = false;  // a failure has left the loop
};

/// Makes a `T` from the loop's executor and more, and destroys it.
template <typename T, auto... Arguments>
struct construction : scenario {
  void attempt() { const T made(loop.get_executor(), Arguments...); }
};

/// What may happen beside success and refusal.
enum class allowed { nothing, escape, termination, both };

template <typename Scenario>
void check(const std::string& operation, allowed also, where whose = where::main_thread) {
  const auto seen = each_fails<Scenario>(whose);
  INFO(fmt::format("{}: {} allocations, {} survived, {} refused, {} escaped, {} terminated", operation, seen.points,
                   seen.survived, seen.refused, seen.escaped, seen.terminated));
  CHECK(seen.wrong == "");
  CHECK(seen.points > 0);
  if (also == allowed::nothing || also == allowed::termination) CHECK(seen.escaped == 0);
  if (also == allowed::nothing || also == allowed::escape) CHECK(seen.terminated == 0);
}

}  // namespace test::memory
