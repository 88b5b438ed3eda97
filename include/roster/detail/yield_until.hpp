#pragma once

#include <roster/version.hpp>

#include <thread>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Gives the processor away, up to `times` times, until `done()`; whether it is. For a thread that is about to sleep: waking it
/// costs the waker and itself more than waiting a little longer.
template <typename Predicate>
bool yield_until(int times, Predicate done) {
  for (; times > 0; --times) {
    if (done()) return true;
    std::this_thread::yield();
  }
  return done();
}

}  // namespace detail

ROSTER_END_NAMESPACE
