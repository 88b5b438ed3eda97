#pragma once

// Memory that runs out when it is told to. For an executable of its own, whose files all include this first.

// Asio's memory comes from operator new, each time, so that every allocation counts.
#define BOOST_ASIO_DISABLE_STD_ALIGNED_ALLOC
#define BOOST_ASIO_DISABLE_BOOST_ALIGN
#define BOOST_ASIO_DISABLE_SMALL_BLOCK_RECYCLING
#define BOOST_ASIO_DISABLE_AWAITABLE_FRAME_RECYCLING

#include <fmt/format.h>
#include <boost/asio/strand.hpp>
#include <boost/system/system_error.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>

namespace test::memory {

enum class where { main_thread, all_threads };

inline std::atomic<long> live{0};
inline std::atomic<long> left{-1};  // allocations until one fails; negative: none does
inline std::atomic<bool> failed{false};
inline std::atomic<where> place{where::main_thread};
inline thread_local bool on_main_thread = false;

/// Asio 1.26 destroys a strand that it could not make before it has set what the destructor reads. That is skipped: the two
/// allocations that follow the strand's own.
inline bool makes_strand(std::size_t size) noexcept {
  using strand = boost::asio::detail::strand_executor_service::implementation_type::element_type;
  thread_local int following = 0;
  if (size == sizeof(strand)) {
    following = 2;
    return false;
  }
  const int before = following;
  following = before == 2 && size <= 3 * sizeof(void*) ? 1 : 0;
  return following == 1 || (before == 1 && size == sizeof(boost::asio::detail::mutex));
}

inline bool runs_out(std::size_t size) noexcept {
  if (makes_strand(size)) return false;
  if (left.load() < 0 || (place.load() == where::main_thread && !on_main_thread)) return false;
  if (left.fetch_sub(1) != 0) return false;
  failed = true;
  return true;
}

/// How one attempt ended in which an allocation failed.
enum class ending {
  not_reached = 10,  ///< there were fewer allocations than that
  survived,          ///< the operation succeeded all the same
  refused,           ///< it failed with what its documentation says
  escaped,           ///< its coroutine is gone, and the failure left the loop: Asio's answer to an initiation that throws
  terminated,        ///< a failure that nobody could be told of
  // What must not be.
  unexpected,
  changed,
  unusable,
  leaked,
};

inline const char* name(ending outcome) {
  constexpr std::array names{
      "not reached",         "survived", "refused", "escaped", "terminated", "an unexpected failure", "not as it was",
      "unusable afterwards", "a leak"};
  return names[static_cast<std::size_t>(outcome) - static_cast<std::size_t>(ending::not_reached)];
}

/// What `attempt` throws when the loop has no more to do and the operation has not ended: its failure left the loop.
struct escaped_failure {};

struct tally {
  int points = 0, survived = 0, refused = 0, escaped = 0, terminated = 0;
  std::string wrong;
};

template <typename Scenario>
ending attempt(long nth, where place_of_failure) noexcept {
  { Scenario().attempt(); }  // what is made once is there from now on
  const auto before = live.load();
  ending outcome = ending::survived;
  {
    Scenario subject;
    place = place_of_failure;
    on_main_thread = true;
    left = nth;
    try {
      subject.attempt();
    } catch (const escaped_failure&) {
      outcome = ending::escaped;
    } catch (const std::bad_alloc&) {
      outcome = ending::refused;
    } catch (const std::exception& e) {
      outcome = subject.expects(e) ? ending::refused : ending::unexpected;
    } catch (...) {
      outcome = ending::unexpected;
    }
    left = -1;
    if (outcome != ending::unexpected && !failed) outcome = ending::not_reached;
    if (!subject.as_it_was(outcome == ending::refused)) return ending::changed;
    try {
      subject.settle();
      subject.attempt();
    } catch (...) {
      return ending::unusable;
    }
  }
  return live.load() == before ? outcome : ending::leaked;
}

/// Lets each allocation of `Scenario::attempt` fail in turn, each time in a process of its own, until one attempt needs no
/// more.
template <typename Scenario>
tally each_fails(where place_of_failure = where::main_thread) {
  tally all;
  for (long nth = 0;; ++nth) {
    const auto child = fork();
    if (child == 0) {
      alarm(20);
      std::set_terminate([] { _exit(static_cast<int>(failed ? ending::terminated : ending::unexpected)); });
      _exit(static_cast<int>(attempt<Scenario>(nth, place_of_failure)));
    }
    int status = 0;
    waitpid(child, &status, 0);
    const auto outcome = WIFEXITED(status) ? static_cast<ending>(WEXITSTATUS(status)) : ending::unexpected;
    if (outcome == ending::not_reached) break;
    ++all.points;
    if (outcome == ending::survived)
      ++all.survived;
    else if (outcome == ending::refused)
      ++all.refused;
    else if (outcome == ending::escaped)
      ++all.escaped;
    else if (outcome == ending::terminated)
      ++all.terminated;
    else if (WIFSIGNALED(status))
      all.wrong += fmt::format("allocation {}: signal {}\n", nth, WTERMSIG(status));
    else
      all.wrong += fmt::format("allocation {}: {}\n", nth, name(outcome));
    if (nth > 1000) return all.wrong += "no end", all;
  }
  return all;
}

}  // namespace test::memory
