#pragma once

#include <roster/call/call_options.hpp>
#include <roster/call/model_info.hpp>
#include <roster/exec/detail/worker_core.hpp>
#include <roster/serving/detail/admission_gate.hpp>
#include <roster/serving/detail/describe_engine.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>

#include <cstddef>
#include <limits>
#include <memory>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Runs calls on an engine that lives on a thread of its own.
template <typename Engine>
class pinned_runner {
 public:
  pinned_runner(const asio::any_io_executor& executor, std::shared_ptr<state_factory<Engine>> factory, device target_device,
                std::size_t queue_limit, std::shared_ptr<time_source> time)
      : gate_(std::make_shared<admission_gate>(admission(1, queue_limit))),
        core_(make_context_bound<worker_core<Engine>>(executor, std::move(factory), std::move(target_device),
                                                      (std::numeric_limits<std::size_t>::max)() / 2, std::move(time))) {}
  pinned_runner(const pinned_runner&) = delete;
  pinned_runner& operator=(const pinned_runner&) = delete;

  /// Ends the thread, which destroys the engine, without waiting: the context joins the thread.
  ~pinned_runner() { core_->close(); }

  const asio::any_io_executor& executor() const noexcept { return core_->executor(); }

  const std::shared_ptr<time_source>& time() const noexcept { return core_->time(); }

  /// Makes the engine now, and returns `info` with what the engine adds. Cannot be cancelled: the factory cannot be stopped,
  /// and after a cancellation the caller would start another one beside it.
  static asio::awaitable<model_info> start(std::shared_ptr<pinned_runner> self, model_info info) {
    auto uncancelled = asio::bind_cancellation_slot(asio::cancellation_slot(), asio::use_awaitable);
    co_return co_await asio::co_spawn(self->core_->executor(), make(self, std::move(info)), std::move(uncancelled));
  }

  /// Runs `work(Engine&, run_context&)`. Completes at once when cancelled; the place in the queue is free when the work has
  /// returned.
  template <typename Work>
  static auto run(std::shared_ptr<pinned_runner> self, call_options options, Work work)
      -> asio::awaitable<result_of<std::invoke_result_t<Work&, Engine&, run_context&>>> {
    admitted<Work> bound(self->gate_->enter(), std::move(work));
    co_return co_await worker_core<Engine>::template run<on_cancel::detach>(self->core_, std::move(options),
                                                                            enqueue_mode::wait_if_full, std::move(bound));
  }

 private:
  struct add_engine_info {
    model_info info;
    model_info operator()(run_context&, Engine& engine) {
      describe_engine(engine, info);
      return std::move(info);
    }
  };

  static asio::awaitable<model_info> make(std::shared_ptr<pinned_runner> self, model_info info) {
    add_engine_info work{std::move(info)};
    co_return co_await worker_core<Engine>::template run<on_cancel::wait>(self->core_, call_options(),
                                                                          enqueue_mode::wait_if_full, std::move(work));
  }

  /// Members are destroyed in reverse order: first the ticket is released, then the work, which may complete the caller.
  template <typename Work>
  class admitted {
   public:
    admitted(admission_gate::ticket ticket, Work work) : work_(std::move(work)), ticket_(std::move(ticket)) {}
    decltype(auto) operator()(run_context& context, Engine& engine) { return work_(engine, context); }

   private:
    Work work_;
    admission_gate::ticket ticket_;
  };

  const std::shared_ptr<admission_gate> gate_;
  const std::shared_ptr<worker_core<Engine>> core_;
};

}  // namespace detail

ROSTER_END_NAMESPACE
