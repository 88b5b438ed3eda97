#pragma once

// Every allocation of every operation fails in turn. Each time the operation succeeds all the same, or fails as documented with
// everything as it was; nothing leaks, nothing waits for ever, and the next attempt on the same objects succeeds.
//
// Two things are Asio's and not to be helped. An initiation that throws inside a co_await destroys the coroutine, and what it
// threw leaves the loop ("escaped"): so the coroutine forms are held to less than those that take tokens. And a completion that
// cannot be posted terminates, documented at `pending_handler`: there is nobody left to
// tell. It is accepted of operations that have to wait, and of nothing else.

#include "tests/faults/injection.hpp"

#include "tests/support/asio.hpp"
#include "tests/support/catch.hpp"

#include <boost/asio/bind_executor.hpp>

#include <cstddef>
#include <exception>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace test::memory {

/// A loop driven by hand, by which all failures can be seen.
struct scenario {
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

  template <typename Predicate>
  void drive(Predicate done) {
    for (int steps = 0; !done(); ++steps) {
      if (steps == 10'000) throw std::logic_error("no end");
      loop.restart();
      std::size_t ran = 1;
      try {
        ran = lost_ ? loop.poll_one() : loop.run_one();  // what was lost may be what the others wait for
      } catch (const std::bad_alloc&) {
        lost_ = true;
      }
      if (ran > 0) continue;
      if (lost_) throw escaped_failure();
      throw std::logic_error("the loop ran out of work");
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
  struct ended {
    bool done = false;
    std::exception_ptr failure;

    auto handler() {
      return [this](auto how, auto... results) {
        done = true;
        if constexpr (std::is_same_v<decltype(how), error_code>) {
          if (how) failure = std::make_exception_ptr(boost::system::system_error(how));
        } else {
          failure = std::move(how);
        }
        ((void)std::move(results), ...);
      };
    }
  };

  /// Starts an operation with a callback, lets `meanwhile` happen, and runs it to its end.
  template <typename Start, typename Meanwhile>
  void call(Start start, Meanwhile meanwhile) {
    ended end;
    start(asio::bind_executor(loop.get_executor(), end.handler()));
    meanwhile();
    drive([&] { return end.done; });
    if (end.failure) std::rethrow_exception(end.failure);
  }

  template <typename Start>
  void call(Start start) {
    call(std::move(start), [] {});
  }

 private:
  bool lost_ = false;  // a failure has left the loop
};

/// What may happen beside success and refusal.
enum class allowed { nothing, escape, termination, both };

template <typename Scenario>
void check(const char* operation, allowed also, where whose = where::main_thread) {
  const auto seen = each_fails<Scenario>(whose);
  INFO(fmt::format("{}: {} allocations, {} survived, {} refused, {} escaped, {} terminated", operation, seen.points,
                   seen.survived, seen.refused, seen.escaped, seen.terminated));
  CHECK(seen.wrong == "");
  CHECK(seen.points > 0);
  if (also == allowed::nothing || also == allowed::termination) CHECK(seen.escaped == 0);
  if (also == allowed::nothing || also == allowed::escape) CHECK(seen.terminated == 0);
}

}  // namespace test::memory
