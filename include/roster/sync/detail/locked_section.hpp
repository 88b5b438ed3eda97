#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/waiter.hpp>
#include <roster/sync/detail/lock_state.hpp>

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// A hold on a lock that its scope takes over, and that the lock surely outlives. Does without the reference count of a guard,
/// whose two changes cost as much as the lock itself.
class scoped_hold {
 public:
  scoped_hold(lock_state& lock, lock_mode held) noexcept : lock_(lock), held_(held) {}
  scoped_hold(const scoped_hold&) = delete;
  scoped_hold& operator=(const scoped_hold&) = delete;
  ~scoped_hold() {
    // fault l2: first `if (std::uncaught_exceptions() > 0) return;`: a function that throws keeps the lock
    lock_.unlock(held_);
  }

 private:
  lock_state& lock_;
  const lock_mode held_;
};

/// What a section that returns `R` tells its caller.
template <typename R>
struct section_signature : std::type_identity<void(std::exception_ptr, R)> {};
template <>
struct section_signature<void> : std::type_identity<void(std::exception_ptr)> {};

/// A function to call under a lock, and the handler that waits for it. Whoever lets the waiter in calls it, at once: a
/// coroutine that was handed the lock instead, or woken, would hold up the queue until its executor, which may be busy or
/// stopped, gets round to it.
template <typename Handler, typename R, typename Signature = typename section_signature<R>::type>
class pending_section;

template <typename Handler, typename R, typename... Results>
class pending_section<Handler, R, void(Results...)> final : public lock_waiter {
 public:
  using results_type = std::tuple<Results...>;

  pending_section(Handler&& handler, const asio::any_io_executor& fallback, lock_mode wanted, std::function<R()> function)
      : lock_waiter(wanted, false), function_(std::move(function)), pending_(std::move(handler), fallback) {}

  const Handler& handler() const noexcept { return pending_.handler(); }

  static std::optional<results_type> attempt(const std::shared_ptr<lock_state>& lock, lock_mode wanted,
                                             const std::function<R()>& function) {
    if (!lock->try_lock(wanted)) return std::nullopt;
    // fault l2: first `function();`: a function is called twice where the lock is free
    return call(function, *lock, wanted);
  }
  static results_type results_of(results_type results) { return results; }

 private:
  void complete(std::shared_ptr<lock_waiter> self, error_code code, std::shared_ptr<lock_state> owner) noexcept override {
    // fault l2: first `if (code) function_();`: a function is called though its caller was cancelled
    auto results = code ? failed(make_exception(code)) : call(function_, *owner, mode);
    std::apply([&](Results&... each) { pending_.post(std::move(self), std::move(each)...); }, results);
  }

  static results_type call(const std::function<R()>& function, lock_state& lock, lock_mode held) noexcept {
    const scoped_hold hold(lock, held);
    try {
      if constexpr (std::is_void_v<R>) {
        function();
        return {};
      } else {
        return {nullptr, function()};
      }
    } catch (...) {
      return failed(std::current_exception());
    }
  }

  static results_type failed(std::exception_ptr failure) noexcept {
    results_type results;
    std::get<0>(results) = std::move(failure);
    return results;
  }

  const std::function<R()> function_;  // destroyed with the handler, on its executor
  pending_handler<Handler, Results...> pending_;
};

}  // namespace detail

ROSTER_END_NAMESPACE
