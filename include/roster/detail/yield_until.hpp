#pragma once

#include <roster/version.hpp>

#include <thread>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Yields up to `times` times until `done()`; returns whether it is. For a thread that is about to sleep: being woken costs
/// more than waiting a little longer.
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
