#pragma once

#include <roster/call/run_context.hpp>
#include <roster/detail/asio.hpp>
#include <roster/detail/waiter.hpp>
#include <roster/detail/yield_until.hpp>
#include <roster/error.hpp>
#include <roster/exec/detail/deadlines.hpp>
#include <roster/exec/detail/task_queue.hpp>
#include <roster/exec/time_source.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <tuple>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

template <typename Chunk>
class channel;

/// The deadline of a stream, in the context of a consumer that waits.
template <typename Chunk>
class channel_deadline final : public deadline {
 public:
  channel_deadline(clock::time_point time, const std::shared_ptr<channel<Chunk>>& late) : deadline(time), channel_(late) {}

  void passed() noexcept override {
    if (const auto late = channel_.lock()) late->expire();
  }

 private:
  const std::weak_ptr<channel<Chunk>> channel_;
};

/// The consumer of a channel while it waits: completed with a chunk, or the end, or an error.
template <typename Chunk>
class channel_reader : public waiter<channel_reader<Chunk>, std::exception_ptr, std::optional<Chunk>> {
 public:
  template <typename Channel>
  static auto attempt(const std::shared_ptr<Channel>& source) {
    std::optional<typename channel_reader::told_type> told(std::in_place);
    if (!source->try_next(std::get<0>(*told), std::get<1>(*told))) told.reset();
    return told;
  }
};

/// A bounded ring from one producer, a thread that may block, to one consumer, a coroutine.
///
/// Producer and consumer own an index each, and share one word:
///
///     bit  0     reading    the consumer is parked in `reader_`; whoever clears the bit owns the reader and may act for it
///     bit  1     writing    the producer waits for room, or is about to
///     bit  2     finished   no more chunks come; `failure_` is set
///     bit  3     abandoned  the consumer will read no more
///     bit  4     shut_down  the producer must stop although the consumer is there
///     bits 8-63             the number of chunks in the ring
///
/// Each side publishes its change by one read-modify-write, which also shows whether the other side is parked, so no wake-up is
/// lost. `acq_rel` throughout: a count publishes the slot's contents one way and its emptiness the other.
template <typename Chunk>
class channel final : public stop_listener {
 public:
  channel(std::size_t capacity, std::optional<call_options::time_point> deadline, std::shared_ptr<time_source> time)
      : context(deadline, *time), time_(std::move(time)), capacity_(capacity), slots_(std::make_unique<slot[]>(capacity)) {}
  channel(const channel&) = delete;
  channel& operator=(const channel&) = delete;
  ~channel() {
    for (auto left = count(word_.load(std::memory_order_acquire)); left > 0; --left)
      drop(std::launder(reinterpret_cast<Chunk*>(slots_[head_].bytes)));
  }

  // The producer's side.

  /// Waits for room. False if no more chunks are wanted, or it is too late; this one is dropped then.
  bool push(Chunk&& chunk) {
    auto word = word_.load(std::memory_order_acquire);
    if (count(word) == capacity_ && !(word & unwanted)) word = wait_for_room();
    if (context.expired()) {
      expire();
      return false;
    }
    if (word & unwanted) return refuse();
    auto* stored = new (slots_[tail_].bytes) Chunk(std::move(chunk));
    if (!publish(word, [](std::uint64_t before) { return before + one; })) {  // the deadline has passed meanwhile
      stored->~Chunk();
      return refuse();
    }
    tail_ = tail_ + 1 == capacity_ ? 0 : tail_ + 1;
    if (word & reading) serve(std::move(reader_));
    return true;
  }

  /// Ends the stream, with an error if `failure` is set. Only the first call counts.
  void finish(std::exception_ptr failure) noexcept {
    if (finish_called_.exchange(true, std::memory_order_acq_rel)) return;
    if (context.expired())
      failure_ = make_exception(errc::deadline_exceeded);
    else if (word_.load(std::memory_order_acquire) & shut_down)
      failure_ = make_exception(errc::stopped);
    else
      failure_ = std::move(failure);
    std::uint64_t before = 0;
    if (publish(before, [](std::uint64_t bits) { return bits | finished; }) && (before & reading)) serve(std::move(reader_));
  }

  /// The deadline has passed, which ends the stream unless it has ended. From any thread.
  void expire() noexcept {
    finish(make_exception(errc::deadline_exceeded));
    context.request_stop();
    wake_writer();
  }

  /// The producer's thread is being shut down, or the deadline of its work has passed.
  void on_stop() noexcept override {
    word_.fetch_or(shut_down, std::memory_order_acq_rel);
    context.request_stop();
    wake_writer();
  }

  // The consumer's side.

  /// Whether there is a chunk, or the end: an error once, then no chunk for ever.
  bool try_next(std::exception_ptr& failure, std::optional<Chunk>& chunk) {
    const auto word = word_.load(std::memory_order_acquire);
    if (word & abandoned) {
      failure = std::exchange(abandon_failure_, nullptr);
      return true;
    }
    // fault b23: `count(word) > 0` -> `count(word) > 0 && !(word & finished)`: a failure overtakes the chunks before it
    if (count(word) > 0) {
      take(chunk);
      const auto left = word_.fetch_sub(one, std::memory_order_acq_rel) - one;
      if ((left & writing) && count(left) <= capacity_ / 2) wake_writer();
      return true;
    }
    if (!(word & finished)) return false;
    failure = std::exchange(failure_, nullptr);
    return true;
  }

  /// Parks the consumer. It completes at once if there is something to read after all.
  void enqueue(std::shared_ptr<channel_reader<Chunk>> reader) {
    reader_ = std::move(reader);
    const auto word = word_.fetch_or(reading, std::memory_order_acq_rel);
    // fault m4: `count(word) > 0 || (word & (finished | abandoned))` -> `word & abandoned`:
    //   a reader parks without looking again
    if (count(word) > 0 || (word & (finished | abandoned)))
      if (auto own = unpark()) serve(std::move(own));
  }

  /// Ends the wait of a parked consumer, if it still waits.
  void cancel(const std::shared_ptr<channel_reader<Chunk>>&) noexcept {
    if (auto reader = unpark()) abort(std::move(reader));
  }

  /// The consumer leaves: asks the producer to stop, without waiting for it.
  void abandon() noexcept {
    if (word_.load(std::memory_order_relaxed) & abandoned) return;  // set below only, by this side
    auto reader = unpark();
    if (!reader) abandon_failure_ = make_exception(asio::error::operation_aborted);
    word_.fetch_or(abandoned, std::memory_order_acq_rel);
    if (reader) abort(std::move(reader));
    context.request_stop();
    wake_writer();
  }

  /// Whether no more chunks come: the producer is done, or is asked to stop by the deadline.
  bool has_finished() const noexcept { return word_.load(std::memory_order_acquire) & finished; }

  /// By which its deadline is.
  const std::shared_ptr<time_source>& time() const noexcept { return time_; }

  run_context context;  ///< what the producer sees

 private:
  static constexpr std::uint64_t reading = 1, writing = 2, finished = 4, abandoned = 8, shut_down = 16, one = 256;
  static constexpr std::uint64_t unwanted = finished | abandoned | shut_down;

  struct slot {
    alignas(Chunk) std::byte bytes[sizeof(Chunk)];
  };

  bool refuse() noexcept {
    context.request_stop();  // the other side is about to
    return false;
  }

  static std::size_t count(std::uint64_t word) noexcept { return static_cast<std::size_t>(word / one); }

  void take(std::optional<Chunk>& target) {
    auto* stored = std::launder(reinterpret_cast<Chunk*>(slots_[head_].bytes));
    target.emplace(std::move(*stored));
    drop(stored);
  }

  void drop(Chunk* stored) noexcept {
    stored->~Chunk();
    head_ = head_ + 1 == capacity_ ? 0 : head_ + 1;
  }

  // The producer's move, unless the stream has finished; `before` is what it changed. Clears `reading` in the same step: seen
  // now and cleared later, it could be that of a later wait, which has nothing to read.
  template <typename Move>
  bool publish(std::uint64_t& before, Move move) noexcept {
    before = word_.load(std::memory_order_relaxed);  // only a guess: the exchange decides
    while (!(before & finished)) {
      const auto after = move(before) & ~reading;
      if (word_.compare_exchange_weak(before, after, std::memory_order_acq_rel, std::memory_order_relaxed)) return true;
    }
    return false;
  }

  std::uint64_t wait_for_room() {
    std::uint64_t word = 0;
    const auto may_go_on = [&] {
      word = word_.load(std::memory_order_acquire);
      return count(word) <= capacity_ / 2 || (word & unwanted) || context.expired();
    };
    if (yield_until(64, may_go_on)) return word;
    std::unique_lock lock(mutex_);  // blocks: the engine's thread
    word_.fetch_or(writing, std::memory_order_acq_rel);
    while (!may_go_on()) {
      pause_writer();
      wait_until_woken(lock);
      resume_writer();
    }
    return word_.fetch_and(~writing, std::memory_order_acq_rel);
  }

  // No longer than the deadline, which nobody may be there to tell of.
  template <typename Lock>
  void wait_until_woken(Lock& lock) {
    if (!context.deadline()) return room_.wait(lock);  // blocks: the engine's thread
    const clock::duration left = *context.deadline() - time_->now();
    const auto wait = std::clamp<clock::duration>(left, std::chrono::milliseconds(1), std::chrono::hours(1));
    room_.wait_for(lock, wait);  // blocks: the engine's thread
  }

  void wake_writer() noexcept {
    // Empty: a producer that saw no room before has begun to wait after this.
    // fault m4: drop: a producer is woken without the mutex
    {
      std::lock_guard lock(mutex_);  // short:
      resume_writer();
    }
    room_.notify_one();
  }

  // Under the mutex. A thread that waits for room does nothing, and counts as one that does something once it is woken.
  void pause_writer() noexcept {
    paused_on_ = task_queue::of_this_thread();
    if (paused_on_) paused_on_->pause_work();
  }

  void resume_writer() noexcept {
    if (auto* queue = std::exchange(paused_on_, nullptr)) queue->resume_work();
  }

  std::shared_ptr<channel_reader<Chunk>> unpark() noexcept {
    if (!(word_.fetch_and(~reading, std::memory_order_acq_rel) & reading)) return nullptr;
    return std::move(reader_);
  }

  // Acts for a reader that was parked, and for which there is something.
  void serve(std::shared_ptr<channel_reader<Chunk>> reader) noexcept {
    std::exception_ptr failure;
    std::optional<Chunk> chunk;
    try {
      try_next(failure, chunk);
    } catch (...) {
      failure = std::current_exception();
    }
    channel_reader<Chunk>::tell(std::move(reader), std::move(failure), std::move(chunk));
  }

  static void abort(std::shared_ptr<channel_reader<Chunk>> reader) noexcept {
    channel_reader<Chunk>::tell(std::move(reader), make_exception(asio::error::operation_aborted), std::nullopt);
  }

  const std::shared_ptr<time_source> time_;
  const std::size_t capacity_;
  const std::unique_ptr<slot[]> slots_;
  std::size_t head_ = 0;                // the consumer's, or whoever acts for it
  std::size_t tail_ = 0;                // the producer's
  std::exception_ptr failure_;          // written before `finished`, then the consumer's
  std::exception_ptr abandon_failure_;  // the consumer's
  std::atomic<bool> finish_called_{false};
  std::atomic<std::uint64_t> word_{0};
  std::shared_ptr<channel_reader<Chunk>> reader_;  // owned by whoever sets or clears `reading`
  std::mutex mutex_;
  task_queue* paused_on_ = nullptr;  // whose thread the producer waits on, under the mutex
  std::condition_variable room_;     // blocks: the engine's thread
};

}  // namespace detail

ROSTER_END_NAMESPACE
