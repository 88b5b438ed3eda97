#pragma once

#include <roster/detail/separate_compilation.hpp>
#include <roster/detail/thread_group.hpp>
#include <roster/detail/waiter.hpp>
#include <roster/exec/detail/call_task.hpp>
#include <roster/exec/detail/task_queue.hpp>
#include <roster/exec/time_source.hpp>

#include <boost/asio/system_executor.hpp>

#include <concepts>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

template <typename Handler>
using pending_idle = pending_waiter<idle_waiter, Handler, void(error_code)>;

/// Completes when nothing runs any more in a stopped queue.
template <typename Token>
auto async_wait_idle(std::shared_ptr<task_queue> queue, asio::any_io_executor fallback, Token&& token) {
  return async_wait<void(error_code), pending_idle>(std::move(fallback), std::move(queue), std::forward<Token>(token));
}

}  // namespace detail

/// A fixed number of threads for work that blocks or computes: inference, file reads, decompression.
///
/// `threads` calls run, `queue_limit` more are queued, and further calls wait for admission, in order; `try_run` is refused
/// instead. Calls that start after its end, through a placement say, fail with `stopped`. Handlers are posted to their
/// contexts: destroy the pool before the contexts of its callers.
///
/// If memory for posting a handler runs out, or the result's move constructor throws, the program terminates. Callers may not
/// run on an `io_context` made with `BOOST_ASIO_CONCURRENCY_HINT_UNSAFE`, which takes no lock.
///
/// **Deadlock**: a loop that running work waits for must not destroy the pool. Work that blocks until other work on its own
/// pool has run waits for ever once all threads do so; post that work, or await it from a coroutine, instead.
///
/// **Thread safety**: all members but the destructor may be called concurrently, from any thread.
///
///     roster::blocking_pool pool{4};
///     auto text = co_await pool.run(read_file, path);
class blocking_pool {
 public:
  /// How many calls are queued before the next ones wait for admission, unless told otherwise.
  static constexpr std::size_t default_queue_limit = 1024;

  /// Starts `threads` threads. The deadlines of calls are by `time`. Throws `invalid_argument` for no threads or a null `time`,
  /// and what `std::thread` throws, with every thread joined that had started.
  explicit blocking_pool(std::size_t threads, std::size_t queue_limit = default_queue_limit,
                         std::shared_ptr<time_source> time = steady_time());

  blocking_pool(const blocking_pool&) = delete;
  blocking_pool& operator=(const blocking_pool&) = delete;

  /// Fails whatever has not started with `stopped`, raises the stop flag of what runs, and joins the threads. Blocks until
  /// running work has returned. Called on a thread of the pool, it detaches that thread instead of joining it.
  ~blocking_pool();

  /// Runs `function(arguments...)`, or `function(run_context&, arguments...)`, on a thread of the pool.
  ///
  /// Callable and arguments are moved or copied in, and destroyed before the caller resumes: on the pool's thread if the call
  /// started, else on the thread that cancels, stops or refuses it, or finds it late. All of them, and the result, may be
  /// move-only; a reference is returned as `std::reference_wrapper`. g++ 12 needs a callable with captures to be named first,
  /// and passed as lvalue.
  ///
  /// **Completion**: with the result, when the call has returned.
  /// **Executor**: resumes on the coroutine's own.
  /// **Cancellation**: terminal. A call that has not started is removed at once. One that runs sees the stop flag of its
  /// `run_context` and completes, with its own outcome, when it returns: what it refers to stays valid until then.
  /// **Errors**: whatever the call throws; `operation_aborted`; `stopped`.
  template <typename F, typename... Args>
  requires(!std::derived_from<std::remove_cvref_t<F>, call_options>) [[nodiscard]] auto run(F&& function, Args&&... arguments) {
    ROSTER_CHECK_CALLABLE(F);
    return detail::call<detail::on_cancel::wait>(
        queue_, std::nullopt, detail::enqueue_mode::wait_if_full,
        detail::bind_work(std::forward<F>(function), std::forward<Args>(arguments)...));
  }

  /// The same, with a deadline. A call that has not started by then leaves the queue, and fails with `deadline_exceeded`. One
  /// that runs sees the stop flag, and completes, with its own outcome, when it returns; `operation_aborted` becomes
  /// `deadline_exceeded` then.
  ///
  /// Deadlines are kept in the context of the executor that the call completes on, one alarm for all of them there. While
  /// nobody runs that context, or it is busy, a call leaves when its turn comes, and one that runs is not asked to stop.
  template <typename F, typename... Args>
  [[nodiscard]] auto run(const call_options& options, F&& function, Args&&... arguments) {
    ROSTER_CHECK_CALLABLE(F);
    return detail::call<detail::on_cancel::wait>(
        queue_, deadline_of(options), detail::enqueue_mode::wait_if_full,
        detail::bind_work(std::forward<F>(function), std::forward<Args>(arguments)...));
  }

  /// Like `run`, for work that owns everything it touches: when cancelled, or at its deadline, it completes at once, even while
  /// it runs. The thread stays taken until the work returns; its result is dropped.
  template <typename F, typename... Args>
  [[nodiscard]] auto run_detachable(const call_options& options, F&& function, Args&&... arguments) {
    ROSTER_CHECK_CALLABLE(F);
    return detail::call<detail::on_cancel::detach>(
        queue_, deadline_of(options), detail::enqueue_mode::wait_if_full,
        detail::bind_work(std::forward<F>(function), std::forward<Args>(arguments)...));
  }

  /// Like `run`, but never waits for admission: with all threads busy and the queue full it fails with `queue_full`.
  template <typename F, typename... Args>
  [[nodiscard]] auto try_run(F&& function, Args&&... arguments) {
    ROSTER_CHECK_CALLABLE(F);
    return detail::call<detail::on_cancel::wait>(
        queue_, std::nullopt, detail::enqueue_mode::refuse_if_full,
        detail::bind_work(std::forward<F>(function), std::forward<Args>(arguments)...));
  }

  /// `run` for any completion token. Handler signature: `void(std::exception_ptr, R)`, `void(std::exception_ptr)` if `R` is
  /// void; `R` must be default-constructible.
  ///
  /// **Completion**: exactly once, never inside this call.
  /// **Executor**: the handler's associated executor, the system executor by default.
  /// **Cancellation**: terminal, partial and total, with the effect described for `run`.
  /// **Errors**: as `run`.
  template <typename F, typename Token>
  [[nodiscard]] auto async_run(F&& function, Token&& token) {
    ROSTER_CHECK_CALLABLE(F);
    return detail::async_call<detail::on_cancel::wait, false>(
        queue_, asio::system_executor(), std::nullopt, detail::enqueue_mode::wait_if_full,
        detail::bind_work(std::forward<F>(function)), std::forward<Token>(token));
  }

  /// Refuses new calls and fails queued ones with `stopped`, at once, awaited or not; then waits for running ones to finish.
  /// Never blocks; may be called again.
  ///
  /// **Completion**: when nothing runs any more.
  /// **Cancellation**: terminal; ends the wait, not the stopping.
  /// **Errors**: `operation_aborted`.
  template <typename Executor = asio::any_io_executor>
  [[nodiscard]] asio::awaitable<void, Executor> stop() {
    queue_->stop();
    return detail::async_wait_idle(queue_, asio::any_io_executor(), asio::use_awaitable_t<Executor>());
  }

  /// `stop` for any completion token. Handler signature: `void(error_code)`.
  ///
  /// **Completion**: exactly once, never inside this call.
  /// **Executor**: the handler's associated executor, the system executor by default.
  /// **Cancellation**: terminal, partial and total; ends the wait, not the stopping.
  /// **Errors**: `operation_aborted`.
  template <typename Token>
  [[nodiscard]] auto async_stop(Token&& token) {
    queue_->stop();
    return detail::async_wait_idle(queue_, asio::system_executor(), std::forward<Token>(token));
  }

  /// The number of calls that run now.
  std::size_t running() const noexcept { return queue_->count().running; }

  /// The number of calls that are queued now.
  std::size_t queued() const noexcept { return queue_->count().queued; }

  /// The number of calls that wait for admission now.
  std::size_t waiting() const noexcept { return queue_->count().waiting; }

  /// For placements: calls made through it fail with `stopped` once the pool is gone.
  const std::shared_ptr<detail::task_queue>& shared_queue() const noexcept { return queue_; }

 private:
  static std::size_t check(std::size_t threads) {
    if (threads == 0) throw error(errc::invalid_argument, "blocking_pool: needs at least one thread");
    return threads;
  }

  std::optional<call_options::time_point> deadline_of(call_options options) const {
    options.start_timeout(*queue_->time());
    return options.deadline();
  }

  void shut_down() noexcept;

  std::shared_ptr<detail::task_queue> queue_;
  std::shared_ptr<detail::thread_group> threads_;
};

#if ROSTER_DEFINITIONS_HERE

ROSTER_DECL blocking_pool::blocking_pool(std::size_t threads, std::size_t queue_limit, std::shared_ptr<time_source> time)
    : queue_(std::make_shared<detail::task_queue>(check(threads), queue_limit, std::move(time))),
      threads_(std::make_shared<detail::thread_group>()) {
  try {
    for (std::size_t i = 0; i < threads; ++i)
      threads_->launch([queue = queue_] {
        queue->serve();
        queue->thread_ended();
      });
  } catch (...) {
    shut_down();
    throw;
  }
}

ROSTER_DECL blocking_pool::~blocking_pool() {
  shut_down();
}

ROSTER_DECL void blocking_pool::shut_down() noexcept {
  queue_->close();
  threads_->join_all();
}

#endif

ROSTER_END_NAMESPACE
