#pragma once

#include <roster/call/call_options.hpp>
#include <roster/detail/context_bound.hpp>
#include <roster/detail/thread_group.hpp>
#include <roster/exec/detail/call_task.hpp>
#include <roster/exec/detail/factory.hpp>
#include <roster/exec/detail/task_queue.hpp>
#include <roster/exec/within.hpp>
#include <roster/sync/once_cell.hpp>

#include <fmt/format.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Makes a worker's state, on the worker's thread.
template <typename State>
class state_factory {
 public:
  state_factory() = default;
  state_factory(const state_factory&) = delete;
  state_factory& operator=(const state_factory&) = delete;
  virtual ~state_factory() = default;
  virtual void make(std::optional<factory_value<State>>& target, const device& target_device) = 0;
};

template <typename State, typename F>
class state_factory_of final : public state_factory<State> {
 public:
  explicit state_factory_of(F function) : function_(std::move(function)) {}

  void make(std::optional<factory_value<State>>& target, const device& target_device) override {
    target.emplace(function_, target_device);
  }

 private:
  F function_;
};

/// One start of a worker: a thread, its queue, and the state that only this thread touches.
template <typename State>
struct worker_session {
  worker_session(std::size_t queue_limit, device chosen, std::shared_ptr<time_source> time)
      : queue(std::make_shared<task_queue>(1, queue_limit, std::move(time))), target_device(std::move(chosen)) {}

  const std::shared_ptr<task_queue> queue;
  const device target_device;
  thread_group::handle thread;
  std::optional<factory_value<State>> state;
};

/// The state that a worker's callers share. Closed with its owner, or with its context.
template <typename State>
class worker_core final : public context_bound {
 public:
  using session = worker_session<State>;

  worker_core(const asio::any_io_executor& executor, std::shared_ptr<state_factory<State>> factory, device target_device,
              std::size_t queue_limit, std::shared_ptr<time_source> time)
      : context_bound(executor),
        threads_(asio::use_service<closing_service>(context_of(executor)).threads()),
        factory_(std::move(factory)),
        default_device_(std::move(target_device)),
        queue_limit_(queue_limit),
        time_(required(std::move(time))),
        cell_(executor) {}

  const std::shared_ptr<time_source>& time() const noexcept { return time_; }

  bool on_own_thread() const noexcept {
    std::lock_guard lock(mutex_);  // short:
    return current_ && current_->queue->on_own_thread();
  }

  bool stopped() const noexcept {
    std::lock_guard lock(mutex_);  // short:
    return stopped_;
  }

  std::size_t depth() const noexcept {
    const auto* ready = cell_.try_get();
    if (!ready) return 0;
    const auto now = (*ready)->queue->count();
    return now.running + now.queued + now.waiting;
  }

  /// The session, started if need be, on a device the call can use.
  static asio::awaitable<std::shared_ptr<session>> started(std::shared_ptr<worker_core> self, std::optional<device> wanted) {
    std::shared_ptr<session> current;
    if (const auto* ready = self->cell_.try_get()) {
      current = *ready;
    } else if (self->stopped()) {
      throw error(errc::stopped);
    } else {
      auto target_device = wanted.value_or(self->default_device_);
      current = *co_await self->cell_.get_or_init(start, self, std::move(target_device));
    }
    if (wanted && *wanted != current->target_device)
      throw error(errc::device_mismatch, fmt::format("the worker lives on '{}', the call asks for '{}'",
                                                     current->target_device.name(), wanted->name()));
    co_return current;
  }

  /// Waits for the session, without getting it: one type for the workers of all states.
  static asio::awaitable<void> start_session(std::shared_ptr<worker_core> self, std::optional<device> wanted) {
    (void)co_await started(std::move(self), std::move(wanted));
  }

  /// Runs `work(run_context&, State&)` on the worker's thread.
  template <on_cancel Policy, typename Work>
  static auto run(std::shared_ptr<worker_core> self, call_options options, enqueue_mode mode, Work work)
      -> asio::awaitable<result_of<std::invoke_result_t<Work&, run_context&, State&>>> {
    // fault d1: never: a call waits for its worker's start past its deadline
    if (options.deadline() && !self->cell_.try_get())
      co_await within(self->time_, *options.deadline(), start_session(self, options.on()));
    auto current = co_await started(std::move(self), options.on());
    auto queue = current->queue;
    on_state<Work> bound{std::move(current), std::move(work)};
    co_return co_await call<Policy>(std::move(queue), options.deadline(), mode, std::move(bound));
  }

  /// Refuses new calls, waits for the running one, destroys the state on its thread.
  static asio::awaitable<void> stop(std::shared_ptr<worker_core> self) {
    auto current = self->refuse();
    if (!current) co_return;
    current->queue->stop();
    drop_state work{current};
    try {
      co_await call<on_cancel::detach>(current->queue, std::nullopt, enqueue_mode::cleanup, std::move(work));
    } catch (const boost::system::system_error& failure) {
      if (failure.code() != errc::stopped) throw;  // somebody else has stopped it
    }
  }

  /// Stops without waiting: the thread ends when what runs has returned.
  void close() noexcept override {
    if (auto current = refuse()) current->queue->close();
  }

  void join() noexcept {
    if (auto current = refuse(); current && current->thread) threads_->join(current->thread);
  }

 private:
  template <typename Work>
  struct on_state {
    std::shared_ptr<session> current;
    Work work;
    decltype(auto) operator()(run_context& context) { return work(context, current->state->value); }
  };

  struct make_state {
    std::shared_ptr<state_factory<State>> factory;
    std::shared_ptr<session> target;
    void operator()(run_context&) { factory->make(target->state, target->target_device); }
  };

  struct drop_state {
    std::shared_ptr<session> target;
    void operator()(run_context&) {
      target->state.reset();
      target->queue->close();
    }
  };

  /// Ends the thread of a start that failed or was never finished.
  struct close_on_failure {
    std::shared_ptr<session> started;
    ~close_on_failure() {
      if (started) started->queue->close();
    }
  };

  static asio::awaitable<std::shared_ptr<session>> start(std::shared_ptr<worker_core> self, device target_device) {
    if (self->stopped()) throw error(errc::stopped);
    auto fresh = std::make_shared<session>(self->queue_limit_, std::move(target_device), self->time_);
    const auto live = [fresh] {
      fresh->queue->serve();
      fresh->state.reset();
    };
    fresh->thread = self->threads_->launch(
        live, [queue = fresh->queue] { queue->close(); }, [queue = fresh->queue] { return queue->still(); });
    close_on_failure guard{fresh};
    if (!self->adopt(fresh)) throw error(errc::stopped);
    make_state work{self->factory_, fresh};
    co_await call<on_cancel::wait>(fresh->queue, std::nullopt, enqueue_mode::wait_if_full, std::move(work));
    guard.started = nullptr;
    co_return fresh;
  }

  bool adopt(const std::shared_ptr<session>& fresh) noexcept {
    std::lock_guard lock(mutex_);  // short:
    // fault b19: first `if (current_) return current_ == fresh;`: a worker caches a failed start
    if (!stopped_) current_ = fresh;
    return !stopped_;
  }

  std::shared_ptr<session> refuse() noexcept {
    std::lock_guard lock(mutex_);  // short:
    // fault b57: drop: a stopped worker takes calls
    stopped_ = true;
    return current_;
  }

  const std::shared_ptr<thread_group> threads_;
  const std::shared_ptr<state_factory<State>> factory_;
  const device default_device_;
  const std::size_t queue_limit_;
  const std::shared_ptr<time_source> time_;
  async_once_cell<std::shared_ptr<session>> cell_;
  mutable std::mutex mutex_;
  bool stopped_ = false;
  std::shared_ptr<session> current_;
};

}  // namespace detail

ROSTER_END_NAMESPACE
