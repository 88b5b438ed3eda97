#pragma once

#include <roster/version.hpp>

#include <cstddef>
#include <limits>

ROSTER_BEGIN_NAMESPACE

/// Which calls a model accepts: a bound on those accepted and not yet ended. A plain state machine, without threads or clocks;
/// its user serialises the events.
class admission {
 public:
  /// Accepts `concurrency` calls to run, and `queue_limit` more to wait.
  admission(std::size_t concurrency, std::size_t queue_limit)
      : limit_(queue_limit < (std::numeric_limits<std::size_t>::max)() - concurrency
                   ? concurrency + queue_limit
                   : (std::numeric_limits<std::size_t>::max)()) {}

  /// A call arrives: whether it is accepted.
  bool arrive() noexcept {
    if (depth_ >= limit_) return false;
    ++depth_;
    return true;
  }

  /// An accepted call has ended, one way or another.
  void leave() noexcept { --depth_; }

  /// Calls accepted and not yet ended.
  std::size_t depth() const noexcept { return depth_; }

  /// The most there can be.
  std::size_t limit() const noexcept { return limit_; }

 private:
  std::size_t limit_;
  std::size_t depth_ = 0;
};

ROSTER_END_NAMESPACE
