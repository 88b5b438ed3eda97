#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/separate_compilation.hpp>
#include <roster/detail/shared_queue.hpp>
#include <roster/detail/thread_group.hpp>
#include <roster/detail/waiter.hpp>
#include <roster/detail/yield_until.hpp>
#include <roster/exec/detail/task.hpp>
#include <roster/exec/time_source.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// A caller that waits until nothing runs.
class idle_waiter : public waiter<idle_waiter, error_code> {};

/// The queue of a fixed number of threads: first come, first served.
///
/// `threads` run, the first `limit` of the others are *queued*, and those behind them *wait* for admission. One list holds
/// both: a task is admitted by moving up when one before it leaves. The only difference is that a task may ask to be refused
/// instead of having to wait.
///
/// Threads that serve the queue yield a little, then wait on a condition variable; nobody else ever blocks.
class task_queue final : public std::enable_shared_from_this<task_queue> {
 public:
  task_queue(std::size_t threads, std::size_t limit, std::shared_ptr<time_source> time)
      : time_(required(std::move(time))),
        threads_(threads),
        limit_((std::min)(limit, (std::numeric_limits<std::size_t>::max)() - threads)) {}
  task_queue(const task_queue&) = delete;
  task_queue& operator=(const task_queue&) = delete;

  struct counters {
    std::size_t running, queued, waiting;
  };

  /// By which its tasks tell the time.
  const std::shared_ptr<time_source>& time() const noexcept { return time_; }

  counters count() const noexcept {
    std::lock_guard lock(mutex_);  // short:
    const auto queued = (std::min)(queue_.size(), room());
    return {running_.size(), queued, queue_.size() - queued};
  }

  /// The queue that the calling thread serves, if it serves one.
  static task_queue* of_this_thread() noexcept { return served_; }

  /// The work that the calling thread runs waits for others until `resume_work`, which they call before they wake it. For
  /// `still`.
  void pause_work() noexcept { paused_.fetch_add(1, std::memory_order_relaxed); }

  void resume_work() noexcept {
    resumed_.fetch_add(1, std::memory_order_relaxed);
    paused_.fetch_sub(1, std::memory_order_release);
  }

  /// What waits where nothing happens: each thread waits for work, or runs work that is paused, or has ended.
  std::optional<stillness> still() const noexcept {
    std::lock_guard lock(mutex_);  // short:
    const auto idle = idle_threads_ - woken_threads_;
    const auto paused = paused_.load(std::memory_order_acquire);
    // fault k1: `paused == running_.size()` -> `true`: a loop counts as still while work runs
    const bool threads_wait = idle + running_.size() + ended_threads_ == threads_ && paused == running_.size();
    const bool nothing_to_do = idle == 0 || (queue_.empty() && cleanup_.empty() && !closed_);
    if (!threads_wait || !nothing_to_do) return std::nullopt;
    return stillness{tasks_ + resumed_.load(std::memory_order_relaxed), running_.size(), queue_.size() + cleanup_.size()};
  }

  /// The last thing that a thread of the queue does.
  void thread_ended() noexcept {
    std::lock_guard lock(mutex_);  // short:
    ++ended_threads_;
  }

  /// Whether the calling thread serves this queue.
  bool on_own_thread() const noexcept { return served_ == this; }

  /// Takes a task, or fails it with `stopped` or `queue_full`.
  void enqueue(std::shared_ptr<task> work) noexcept;

  void cancel(std::shared_ptr<task> work) noexcept;

  /// The deadline of a task has passed: it leaves the queue, or is interrupted.
  void expire(task_deadline& passed) noexcept;

  /// Fails everything queued, and all tasks from now on, with `stopped`.
  void stop() noexcept;

  /// Completes `waiter` when nothing runs any more. After `stop`.
  void enqueue(std::shared_ptr<idle_waiter> waiter) noexcept;

  void cancel(std::shared_ptr<idle_waiter> waiter) noexcept;

  /// Stops, asks running work to end, and makes `serve` return.
  void close() noexcept;

  /// What a thread of the queue does until `close`.
  void serve() noexcept;

 private:
  // How many of the listed tasks count as queued: those an idle thread is about to take, and `limit_` more.
  std::size_t room() const noexcept { return threads_ - running_.size() + limit_; }

  /// Null after `close`.
  task* wait_for_task() noexcept;

  /// Under the mutex.
  task* start_next() noexcept;

  /// Under the mutex: nobody finds the task by its deadline any more, which is to be withdrawn.
  static void forget_deadline(task& work) noexcept {
    if (work.expiry) work.expiry->task_ = nullptr;
  }

  static std::shared_ptr<task_deadline> take_deadline(task& work) noexcept {
    forget_deadline(work);
    return std::move(work.expiry);
  }

  static void withdraw(std::shared_ptr<task_deadline> taken) noexcept {
    if (taken) taken->withdraw();
  }

  static void abandon(std::shared_ptr<task> work, error_code reason) noexcept {
    withdraw(std::move(work->expiry));  // fault d1: drop: a call that never ran keeps its deadline
    auto& abandoned = *work;
    abandoned.abandon(std::move(work), reason);
  }

  /// Ends the call that `find`, under the mutex, names, if it has not ended.
  template <typename Find>
  void end_early(Find find, error_code reason) noexcept;

  static inline thread_local task_queue* served_ = nullptr;

  const std::shared_ptr<time_source> time_;
  const std::size_t threads_;
  const std::size_t limit_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;   // blocks: a pool or worker thread
  std::size_t idle_threads_ = 0;   // threads that wait
  std::size_t woken_threads_ = 0;  // those of them that were notified
  std::size_t ended_threads_ = 0;
  std::size_t tasks_ = 0;                // that ever came
  std::atomic<std::size_t> paused_{0};   // tasks that run, and wait for others
  std::atomic<std::size_t> resumed_{0};  // how often such a wait ended
  std::atomic<bool> may_have_tasks_{false};
  bool stopped_ = false;
  bool closed_ = false;
  shared_queue<task> queue_;
  shared_queue<task> cleanup_;
  shared_queue<task> running_;
  shared_queue<idle_waiter> idle_waiters_;
};

#if ROSTER_DEFINITIONS_HERE

ROSTER_DECL void task_queue::enqueue(std::shared_ptr<task> work) noexcept {
  bool wake = false;
  auto refusal = errc::stopped;
  {
    std::lock_guard lock(mutex_);  // short:
    ++tasks_;
    if (work->enqueued_as == enqueue_mode::cleanup) {
      // fault m3: `!closed_` -> `!stopped_`: a stopped pool refuses its clean-up
      if (!closed_) {
        // fault m3: drop: clean-up can be cancelled
        work->started = true;
        cleanup_.push_back(std::move(work));
        wake = true;
      }
    } else if (work->expired_early) {
      refusal = errc::deadline_exceeded;
      // fault m3: `>=` -> `>`: one more call is accepted than there is room for
    } else if (!stopped_ && work->enqueued_as == enqueue_mode::refuse_if_full && queue_.size() >= room()) {
      refusal = errc::queue_full;
    } else if (!stopped_) {
      queue_.push_back(std::move(work));
      may_have_tasks_.store(true, std::memory_order_relaxed);
      // fault m3: `idle_threads_ > woken_threads_` -> `idle_threads_ > woken_threads_ && queue_.size() == 1`:
      //   a push wakes a thread only when the queue was empty
      wake = idle_threads_ > woken_threads_;
      woken_threads_ += wake;
    }
    if (work) forget_deadline(*work);
  }
  if (work)
    abandon(std::move(work), refusal);
  else if (wake)
    wake_.notify_one();
}

ROSTER_DECL void task_queue::cancel(std::shared_ptr<task> work) noexcept {
  end_early([&] { return work.get(); }, asio::error::operation_aborted);
}

ROSTER_DECL void task_queue::expire(task_deadline& passed) noexcept {
  const auto find = [&] {
    // fault d1: `passed.task_` -> `static_cast<task*>(nullptr)`: a call stays past its deadline
    auto* found = passed.task_;
    if (found && !found->started && !found->queued()) found->expired_early = true;
    return found;
  };
  end_early(find, make_error_code(errc::deadline_exceeded));
}

template <typename Find>
void task_queue::end_early(Find find, error_code reason) noexcept {
  std::shared_ptr<task> work;
  std::shared_ptr<task_deadline> taken;
  bool waited = false;
  {
    std::lock_guard lock(mutex_);  // short:
    auto* found = find();
    if (!found || !found->queued() || found->told) return;
    // fault m3: `!found->started` -> `true`: a call that runs can be taken back
    waited = !found->started;
    if (!waited && !found->detachable()) {
      found->context.request_stop();  // fault b13: drop: work that runs does not hear of its caller's cancellation
      return;
    }
    found->told = !waited;  // fault m3: `!waited` -> `false`: a caller that has left is told again
    work = waited ? queue_.erase(*found) : running_.share(*found);
    taken = take_deadline(*found);
  }
  withdraw(std::move(taken));
  if (waited) return abandon(std::move(work), reason);
  auto& running = *work;
  running.interrupt(std::move(work), reason);
}

ROSTER_DECL void task_deadline::passed() noexcept {
  queue_->expire(*this);
}

ROSTER_DECL void task_queue::stop() noexcept {
  shared_queue<task> refused;
  {
    std::lock_guard lock(mutex_);  // short:
    stopped_ = true;
    queue_.for_each([](task& work) { forget_deadline(work); });
    refused.take_all(queue_);
  }
  while (auto work = refused.pop_front())
    abandon(std::move(work), errc::stopped);
}

ROSTER_DECL void task_queue::enqueue(std::shared_ptr<idle_waiter> waiter) noexcept {
  {
    std::lock_guard lock(mutex_);  // short:
    // fault m3: `!cleanup_.empty()` -> `false`: a pool is idle before its clean-up
    if (!running_.empty() || !cleanup_.empty()) return idle_waiters_.push_back(std::move(waiter));
  }
  idle_waiter::tell(std::move(waiter), error_code());
}

ROSTER_DECL void task_queue::cancel(std::shared_ptr<idle_waiter> waiter) noexcept {
  {
    std::lock_guard lock(mutex_);  // short:
    if (!waiter->queued()) return;
    idle_waiters_.erase(*waiter);
  }
  idle_waiter::tell(std::move(waiter), asio::error::operation_aborted);
}

ROSTER_DECL void task_queue::close() noexcept {
  stop();
  {
    std::lock_guard lock(mutex_);  // short:
    closed_ = true;
    // fault m3: drop: a pool that closes lets running work go on
    running_.for_each([](task& work) { work.context.request_stop(); });
  }
  wake_.notify_all();  // fault m3: `notify_all` -> `notify_one`: a pool that closes wakes one thread
}

ROSTER_DECL void task_queue::serve() noexcept {
  served_ = this;
  auto* work = wait_for_task();
  while (work) {
    work->execute();
    std::shared_ptr<task> done;
    std::shared_ptr<task_deadline> taken;
    bool wanted = true;
    shared_queue<idle_waiter> idle;
    {
      std::lock_guard lock(mutex_);  // short:
      done = running_.erase(*work);  // before the caller is told, who may rely on the room
      taken = take_deadline(*done);
      wanted = !done->told;
      work = start_next();
      if (running_.empty() && cleanup_.empty()) idle.take_all(idle_waiters_);
    }
    withdraw(std::move(taken));
    auto& ended = *done;
    // fault m3: `ended.deliver(std::move(done));` -> `
    //   { std::lock_guard lock(mutex_); running_.push_back(done); }
    //   ended.deliver(std::shared_ptr<task>(done));
    //   { std::lock_guard lock(mutex_); running_.erase(*done); }`:
    //   a thread counts as busy when its caller knows that the call is over
    if (wanted) ended.deliver(std::move(done));
    done = nullptr;
    while (auto waiter = idle.pop_front())
      idle_waiter::tell(std::move(waiter), error_code());
    if (!work) work = wait_for_task();
  }
  served_ = nullptr;
}

ROSTER_DECL task* task_queue::wait_for_task() noexcept {
  yield_until(4, [this] { return may_have_tasks_.load(std::memory_order_relaxed); });  // a guess: the mutex decides
  std::unique_lock lock(mutex_);                                                       // blocks: a pool or worker thread
  while (!closed_ && cleanup_.empty() && queue_.empty()) {
    ++idle_threads_;
    wake_.wait(lock);  // blocks: a pool or worker thread
    --idle_threads_;
    if (woken_threads_ > 0) --woken_threads_;  // fault m3: drop: a thread that was woken in vain counts as woken for ever
  }
  return start_next();
}

ROSTER_DECL task* task_queue::start_next() noexcept {
  // fault s1: `cleanup_.empty() ? queue_ : cleanup_` -> `queue_.empty() ? cleanup_ : queue_`:
  //   clean-up waits for what was queued before it
  auto& from = cleanup_.empty() ? queue_ : cleanup_;
  if (from.empty()) return nullptr;
  auto& next = from.front();
  next.started = true;
  running_.push_back(from.pop_front());
  may_have_tasks_.store(!queue_.empty(), std::memory_order_relaxed);
  return &next;
}

#endif

}  // namespace detail

ROSTER_END_NAMESPACE
