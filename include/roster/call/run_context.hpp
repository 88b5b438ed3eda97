#pragma once

#include <roster/call/call_options.hpp>
#include <roster/call/clock.hpp>
#include <roster/error.hpp>

#include <boost/system/error_code.hpp>
#include <boost/system/system_error.hpp>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

/// How far a piece of work has come: `done` of `total` steps, 0 of 0 before the first report.
struct run_progress {
  std::uint32_t done = 0;   ///< steps finished
  std::uint32_t total = 0;  ///< steps in all

  /// Equal when both numbers are.
  friend bool operator==(const run_progress&, const run_progress&) = default;
};

namespace detail {

/// `boost::asio::error::operation_aborted`, for code that does not include Asio.
inline error_code operation_aborted() noexcept {
#if defined(_WIN32)
  return {995, boost::system::system_category()};
#else
  return {ECANCELED, boost::system::system_category()};
#endif
}

/// Called once when the work of a `run_context` is asked to stop.
class stop_listener {
 public:
  virtual void on_stop() noexcept = 0;

 protected:
  ~stop_listener() = default;
};

template <typename Chunk, typename Produce>
class stream_work;

}  // namespace detail

/// A running call as its work sees it: whether to stop, the deadline, and where to report progress.
///
/// **Thread safety**: all members may be called concurrently, from any thread.
class run_context {
 public:
  /// The context of a call without a deadline. Created by the code that runs the work; create one to call an engine directly.
  run_context() {}

  /// The context of a call with a deadline, by `std::chrono::steady_clock`.
  explicit run_context(std::optional<call_options::time_point> deadline) : deadline_(deadline) {}

  /// The context of a call with a deadline by `time`, which must outlive it.
  run_context(std::optional<call_options::time_point> deadline, const clock& time) : deadline_(deadline), clock_(&time) {}

  run_context(const run_context&) = delete;
  run_context& operator=(const run_context&) = delete;

  /// Whether to stop: the call was cancelled, its deadline has passed, its stream was dropped, or the owner of the thread shuts
  /// down.
  bool stop_requested() const noexcept { return stop_.load(std::memory_order_relaxed); }

  /// Throws `operation_aborted` if the work is to stop.
  void throw_if_stop_requested() const {
    if (stop_requested()) throw boost::system::system_error(detail::operation_aborted());
  }

  /// The deadline, if there is one. The work is asked to stop then; a caller that need not wait for its end is told.
  const std::optional<call_options::time_point>& deadline() const noexcept { return deadline_; }

  /// Whether the deadline has passed.
  bool expired() const { return deadline_ && *deadline_ <= (clock_ ? clock_->now() : call_options::time_point::clock::now()); }

  /// Reports that `done` of `total` steps are finished.
  void report_progress(std::uint32_t done, std::uint32_t total) noexcept {
    progress_.store(std::uint64_t{total} << 32 | done, std::memory_order_relaxed);
  }

  /// The last report.
  run_progress progress() const noexcept {
    const auto both = progress_.load(std::memory_order_relaxed);
    return {static_cast<std::uint32_t>(both), static_cast<std::uint32_t>(both >> 32)};
  }

  /// Asks the work to stop at its next step.
  void request_stop() noexcept {
    stop_.store(true, std::memory_order_relaxed);
    std::lock_guard lock(mutex_);  // short:
    if (auto* listener = std::exchange(listener_, nullptr)) listener->on_stop();
  }

 private:
  template <typename, typename>
  friend class detail::stream_work;

  // Calls the listener at once if the work was already asked to stop. Null removes it: it is not called from then on.
  void listen(detail::stop_listener* listener) noexcept {
    std::lock_guard lock(mutex_);  // short:
    listener_ = listener;
    if (listener && stop_requested()) std::exchange(listener_, nullptr)->on_stop();
  }

  std::optional<call_options::time_point> deadline_;
  const clock* clock_ = nullptr;  // null for the steady clock
  std::mutex mutex_;
  detail::stop_listener* listener_ = nullptr;
  std::atomic<bool> stop_{false};           // carries no data: relaxed
  std::atomic<std::uint64_t> progress_{0};  // total in the high half, done in the low half
};

ROSTER_END_NAMESPACE
