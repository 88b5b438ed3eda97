#pragma once

#include <roster/call/call_options.hpp>
#include <roster/call/model_info.hpp>
#include <roster/detail/context_bound.hpp>
#include <roster/exec/detail/call_task.hpp>
#include <roster/exec/detail/factory.hpp>
#include <roster/exec/detail/task_queue.hpp>
#include <roster/exec/within.hpp>
#include <roster/serving/detail/admission_gate.hpp>
#include <roster/serving/detail/describe_engine.hpp>
#include <roster/sync/semaphore.hpp>

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Idle engines. A task itself, which destroys them: it runs before all others, even on a pool that was stopped.
template <typename Engine>
class engine_set final : public task {
 public:
  using slot = std::list<factory_value<Engine>>;  // one engine; moves between lists without moving the engine

  explicit engine_set(const clock& time) : task(std::nullopt, time, enqueue_mode::cleanup) {}

  void execute() noexcept override { idle_.clear(); }
  void deliver(std::shared_ptr<task>) noexcept override {}
  void abandon(std::shared_ptr<task>, error_code) noexcept override { idle_.clear(); }

  /// A set whose last owner has it destroyed on the pool of `queue`, or destroys it itself if that pool is gone.
  static std::shared_ptr<engine_set> make(std::shared_ptr<task_queue> queue) {
    auto owned = std::make_shared<engine_set>(*queue->time());
    auto* set = owned.get();
    return {set, [queue = std::move(queue), last = std::move(owned)](engine_set*) mutable noexcept {
              queue->enqueue(std::move(last));
            }};
  }

  /// An idle engine. There is one for each permit.
  slot take() noexcept {
    slot taken;
    std::lock_guard lock(mutex_);  // short:
    taken.splice(taken.end(), idle_, idle_.begin());
    return taken;
  }

  void put(slot& engine) noexcept {
    std::lock_guard lock(mutex_);  // short:
    idle_.splice(idle_.end(), engine);
  }

 private:
  std::mutex mutex_;
  slot idle_;
};

/// Runs calls on engines that live on a blocking pool, never two in one engine at once.
template <typename Engine>
class pooled_runner {
 public:
  pooled_runner(std::shared_ptr<task_queue> queue, const asio::any_io_executor& executor, std::size_t instances,
                std::size_t queue_limit)
      : queue_(std::move(queue)),
        context_(make_context_bound<context_bound>(executor)),
        gate_(std::make_shared<admission_gate>(admission(instances, queue_limit))),
        permits_(executor, instances),
        engines_(engine_set<Engine>::make(queue_)) {}
  pooled_runner(const pooled_runner&) = delete;
  pooled_runner& operator=(const pooled_runner&) = delete;

  const asio::any_io_executor& executor() const noexcept { return context_->executor(); }

  const std::shared_ptr<time_source>& time() const noexcept { return queue_->time(); }

  /// Makes one more engine, on the pool, and returns `info` with what the engine adds.
  template <typename Factory>
  static asio::awaitable<model_info> add_engine(std::shared_ptr<pooled_runner> self, Factory factory, model_info info) {
    make_engine<Factory> work{self->engines_, std::move(factory), std::move(info)};
    co_return co_await call<on_cancel::wait>(self->queue_, std::nullopt, enqueue_mode::wait_if_full, std::move(work));
  }

  /// Runs `work(Engine&, run_context&)`. Completes at once when cancelled; the engine is free again when the work has returned.
  template <typename Work>
  static auto run(std::shared_ptr<pooled_runner> self, call_options options, Work work)
      -> asio::awaitable<result_of<std::invoke_result_t<Work&, Engine&, run_context&>>> {
    if (options.on() && *options.on() != device())
      throw error(errc::device_mismatch,
                  "pooled engines choose their device themselves, the call asks for '" + options.on()->name() + '\'');
    auto ticket = self->gate_->enter();
    auto permit = co_await acquire(*self, options.deadline());
    on_engine<Work> bound(self->engines_, std::move(ticket), std::move(permit), std::move(work));
    co_return co_await call<on_cancel::detach>(self->queue_, options.deadline(), enqueue_mode::wait_if_full, std::move(bound));
  }

 private:
  static asio::awaitable<semaphore_permit> ready(semaphore_permit free) { co_return free; }

  static asio::awaitable<semaphore_permit> acquire(pooled_runner& self, std::optional<call_options::time_point> deadline) {
    // fault k1: always: a call waits for an engine past its deadline
    if (!deadline) return self.permits_.acquire();
    if (auto free = self.permits_.try_acquire()) return ready(std::move(*free));
    return within(self.time(), *deadline, self.permits_.acquire());
  }

  template <typename Factory>
  struct make_engine {
    std::shared_ptr<engine_set<Engine>> target;
    Factory factory;
    model_info info;

    model_info operator()(run_context&) {
      typename engine_set<Engine>::slot made;
      made.emplace_back(factory, device());
      describe_engine(made.front().value, info);
      target->put(made);
      return std::move(info);
    }
  };

  /// Members are destroyed in reverse order: first the permit is released, then the ticket, then the work, which may complete
  /// the caller.
  template <typename Work>
  class on_engine {
   public:
    on_engine(std::shared_ptr<engine_set<Engine>> engines, admission_gate::ticket ticket, semaphore_permit permit, Work work)
        : work_(std::move(work)), engines_(std::move(engines)), ticket_(std::move(ticket)), permit_(std::move(permit)) {}

    decltype(auto) operator()(run_context& context) {
      borrowed engine(*engines_);
      return work_(engine.slot.front().value, context);
    }

   private:
    struct borrowed {
      explicit borrowed(engine_set<Engine>& from) : owner(from), slot(from.take()) {}
      borrowed(const borrowed&) = delete;
      borrowed& operator=(const borrowed&) = delete;
      ~borrowed() { owner.put(slot); }
      engine_set<Engine>& owner;
      typename engine_set<Engine>::slot slot;
    };

    Work work_;
    std::shared_ptr<engine_set<Engine>> engines_;
    admission_gate::ticket ticket_;
    semaphore_permit permit_;
  };

  const std::shared_ptr<task_queue> queue_;
  const std::shared_ptr<const context_bound> context_;
  const std::shared_ptr<admission_gate> gate_;
  async_semaphore permits_;
  const std::shared_ptr<engine_set<Engine>> engines_;  // shared with the calls, which may outlive this
};

}  // namespace detail

ROSTER_END_NAMESPACE
