#pragma once

#include <roster/error.hpp>
#include <roster/version.hpp>

#include <chrono>
#include <memory>
#include <utility>

ROSTER_BEGIN_NAMESPACE

/// Tells the time. Steady: it never goes back, and a change of the wall clock does not move it.
///
/// **Thread safety**: `now` may be called concurrently, from any thread, also under a lock: an implementation calls nothing of
/// the library.
class clock {
 public:
  using time_point = std::chrono::steady_clock::time_point;  ///< an instant
  using duration = std::chrono::steady_clock::duration;      ///< a distance between two

  clock() = default;
  clock(const clock&) = delete;
  clock& operator=(const clock&) = delete;
  virtual ~clock() = default;

  /// The time now.
  virtual time_point now() const noexcept = 0;

  /// `after` from now, at most the last instant there is.
  time_point from_now(duration after) const noexcept {
    const auto start = now();
    return after < (time_point::max)() - start ? start + after : (time_point::max)();
  }
};

namespace detail {

/// `time`, which a caller has given. `invalid_argument` for null.
template <typename Clock>
std::shared_ptr<Clock> required(std::shared_ptr<Clock> time) {
  if (!time) throw error(errc::invalid_argument, "the time source cannot be null");
  return time;
}

}  // namespace detail

ROSTER_END_NAMESPACE
