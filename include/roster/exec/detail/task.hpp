#pragma once

#include <roster/call/run_context.hpp>
#include <roster/detail/asio.hpp>
#include <roster/detail/shared_queue.hpp>
#include <roster/exec/detail/deadlines.hpp>

#include <memory>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// How a task enters its queue.
enum class enqueue_mode {
  wait_if_full,
  refuse_if_full,  ///< or else it fails with `queue_full`
  cleanup          ///< before all others, even after `stop`, and even if its caller is cancelled
};

class task_queue;
class task;

/// The deadline of a task.
class task_deadline final : public deadline {
 public:
  task_deadline(clock::time_point time, task& late, std::shared_ptr<task_queue> queue)
      : deadline(time), task_(&late), queue_(std::move(queue)) {}

  void passed() noexcept override;

 private:
  friend class task_queue;
  task* task_;  // null once it has left the queue, whose mutex guards this
  const std::shared_ptr<task_queue> queue_;
};

/// Work for the threads of a `task_queue`, and the caller that waits for it.
class task : public queue_node<task> {
 public:
  using waiter_type = task;

  task(std::optional<call_options::time_point> until, const clock& time, enqueue_mode mode)
      : context(until, time), enqueued_as(mode) {}
  task(const task&) = delete;
  task& operator=(const task&) = delete;
  virtual ~task() = default;

  /// Runs the work, keeps its outcome, destroys it. On a thread of the queue.
  virtual void execute() noexcept = 0;

  /// Completes the caller with the outcome. Like the other completions it takes the owning reference, and
  /// releases it before the handler runs: the node's memory may come from the handler's allocator.
  virtual void deliver(std::shared_ptr<task> self) noexcept = 0;

  /// Destroys work that will never start, fails the caller.
  virtual void abandon(std::shared_ptr<task> self, error_code reason) noexcept = 0;

  /// Whether the caller need not wait for the end of work that is to stop.
  virtual bool detachable() const noexcept { return false; }

  /// The caller of a detachable task leaves while the work runs: asks that to stop, fails the caller. Nothing is delivered
  /// then.
  virtual void interrupt(std::shared_ptr<task>, error_code) noexcept {}

  run_context context;
  const enqueue_mode enqueued_as;
  // Guarded by the queue's mutex:
  bool started = false;                   ///< or certain to start: can no longer be removed
  bool expired_early = false;             ///< before it came
  bool told = false;                      ///< while it ran: nobody waits for it
  std::shared_ptr<task_deadline> expiry;  ///< if the task has a deadline
};

}  // namespace detail

ROSTER_END_NAMESPACE
