#pragma once

#include <roster/detail/async_coroutine.hpp>
#include <roster/exec/detail/start_stream.hpp>
#include <roster/exec/detail/worker_core.hpp>
#include <roster/exec/stream.hpp>
#include <roster/exec/time_source.hpp>

#include <concepts>
#include <cstddef>
#include <memory>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// A future: a token's result that can only be waited for by blocking.
template <typename Result>
concept future_like = requires(Result& result) {
  result.wait();  // blocks: nobody, it is not called
};

template <typename T>
asio::awaitable<T> would_deadlock() {
  throw error(errc::would_deadlock, "work on a worker cannot wait for its own worker");
  co_return co_await asio::awaitable<T>();
}

}  // namespace detail

/// A thread with a state that it alone makes, uses and destroys: for models that may be touched from one thread only.
///
/// The thread starts with the first call; calls that arrive meanwhile share that start. When the factory throws, every one of
/// them gets its exception, the thread ends, and the next call tries again. Calls run one at a time, first come, first served
/// (those that waited for the start: in the order in which they resume); `queue_limit` are queued, others wait for admission.
///
/// The worker lives on one device: the one the first call asks for, else the default. A call for another fails with
/// `device_mismatch`.
///
/// Starts are coordinated on the executor. If its context is destroyed before the worker, it closes the worker and joins the
/// thread. The thread posts to the contexts of callers: destroy the worker, or its context, before them. If memory runs out,
/// the same happens as in `async_once_cell` and `blocking_pool`.
///
/// **Deadlock**: work may post more work to its own worker, but must not wait for it there. A call made on the worker's own
/// thread whose token returns a future, as `use_future` does in all its forms, fails with `would_deadlock`.
///
/// **Thread safety**: all members but the destructor may be called concurrently, from any thread.
///
///     roster::worker_thread<net> worker{executor, [] { return net("digits.onnx"); }};
///     auto label = co_await worker.run([](net& n, image scan) { return n.classify(scan); }, std::move(scan));
template <typename State>
class worker_thread {
 public:
  /// How many calls are queued before the next ones wait for admission, unless told otherwise.
  static constexpr std::size_t default_queue_limit = 1024;

  /// How many chunks a stream buffers, unless told otherwise.
  static constexpr std::size_t default_stream_capacity = 64;

  /// A worker that is not started. `factory()` or `factory(const device&)` makes the state, on the worker's thread, each time
  /// the worker starts. The deadlines of calls are by `time`; null is an `invalid_argument`.
  template <typename Factory>
  worker_thread(asio::any_io_executor executor, Factory factory, device default_device = device(),
                std::size_t queue_limit = default_queue_limit, std::shared_ptr<time_source> time = steady_time())
      : core_(detail::make_context_bound<core>(executor,
                                               std::make_shared<detail::state_factory_of<State, Factory>>(std::move(factory)),
                                               std::move(default_device), queue_limit, std::move(time))) {}

  /// Takes the worker over. The other can only be destroyed.
  worker_thread(worker_thread&&) noexcept = default;
  worker_thread& operator=(worker_thread&&) = delete;

  /// Fails what has not started with `stopped`, raises the stop flag of what runs, and joins the thread. Blocks until running
  /// work has returned. Called on the worker's own thread, it leaves that thread to be joined by the executor's context.
  ~worker_thread() {
    if (!core_) return;
    core_->close();
    core_->join();  // blocks: whoever destroys the worker
  }

  /// Starts the worker, or joins the start that is under way.
  ///
  /// **Completion**: when the state is there; at once if it is.
  /// **Executor**: resumes on the coroutine's own.
  /// **Cancellation**: terminal; detaches this caller. The factory itself is not interrupted.
  /// **Errors**: whatever the factory throws; what `std::thread` throws; `stopped`; `operation_aborted`.
  [[nodiscard]] asio::awaitable<void> start() { return start(core_); }

  /// Runs `function(State&, arguments...)`, or `function(State&, run_context&, arguments...)`, on the worker's thread, and
  /// starts the worker if need be. Callable, arguments and result are treated as by `blocking_pool::run`.
  ///
  /// **Completion**: with the result, when the call has returned.
  /// **Executor**: resumes on the coroutine's own.
  /// **Cancellation**: terminal. A call that has not started is removed at once. One that runs sees the stop flag of its
  /// `run_context` and completes, with its own outcome, when it returns.
  /// **Errors**: whatever the call throws; as `start`.
  template <typename F, typename... Args>
  requires(!std::derived_from<std::remove_cvref_t<F>, call_options>) [[nodiscard]] auto run(F&& function, Args&&... arguments) {
    return run(call_options(), std::forward<F>(function), std::forward<Args>(arguments)...);
  }

  /// The same, with a device, and a deadline as in `blocking_pool::run`, which also ends the wait for the worker's start. Adds
  /// the errors `deadline_exceeded` and `device_mismatch`.
  template <typename F, typename... Args>
  [[nodiscard]] auto run(const call_options& options, F&& function, Args&&... arguments) {
    ROSTER_CHECK_CALLABLE(F);
    return core::template run<detail::on_cancel::wait>(
        core_, made_now(options), detail::enqueue_mode::wait_if_full,
        detail::bind_work(std::forward<F>(function), std::forward<Args>(arguments)...));
  }

  /// Like `run`, for work that owns everything it touches: when cancelled, or at its deadline, it completes at once, even while
  /// it runs.
  template <typename F, typename... Args>
  [[nodiscard]] auto run_detachable(const call_options& options, F&& function, Args&&... arguments) {
    ROSTER_CHECK_CALLABLE(F);
    return core::template run<detail::on_cancel::detach>(
        core_, made_now(options), detail::enqueue_mode::wait_if_full,
        detail::bind_work(std::forward<F>(function), std::forward<Args>(arguments)...));
  }

  /// `run` for any completion token. Handler signature: `void(std::exception_ptr, R)`, `void(std::exception_ptr)` if `R` is
  /// void; `R` must be default-constructible.
  ///
  /// **Completion**: exactly once, never inside this call.
  /// **Executor**: the handler's associated executor, the worker's by default.
  /// **Cancellation**: terminal; as `run`.
  /// **Errors**: as `run`; `would_deadlock` for a future that the worker's own thread would wait for.
  template <typename F, typename Token>
  [[nodiscard]] auto async_run(F&& function, Token&& token) {
    ROSTER_CHECK_CALLABLE(F);
    auto start = [&] {
      return core::template run<detail::on_cancel::wait>(core_, call_options(), detail::enqueue_mode::wait_if_full,
                                                         detail::bind_work(std::forward<F>(function)));
    };
    using result_type = decltype(detail::async_coroutine(core_->executor(), start(), std::forward<Token>(token)));
    if constexpr (detail::future_like<result_type>)
      if (core_->on_own_thread())
        return detail::async_coroutine(core_->executor(), detail::would_deadlock<typename decltype(start())::value_type>(),
                                       std::forward<Token>(token));
    return detail::async_coroutine(core_->executor(), start(), std::forward<Token>(token));
  }

  /// Runs `produce(State&, sink<Chunk>&, run_context&)` on the worker's thread and returns what it puts into its sink. The call
  /// is started at once; whatever keeps it from running is an error of the stream. Throws `invalid_argument` for
  /// a capacity of 0.
  template <typename Chunk, typename Produce>
  stream<Chunk> start_stream(const call_options& options, Produce produce, std::size_t capacity = default_stream_capacity) {
    auto call = made_now(options);
    return detail::start_stream<Chunk>(
        core_->executor(), capacity, call.deadline(), core_->time(), std::move(produce), [&](auto work) {
          return core::template run<detail::on_cancel::detach>(core_, std::move(call), detail::enqueue_mode::wait_if_full,
                                                               detail::bind_work(std::move(work)));
        });
  }

  /// Refuses new calls, fails queued ones with `stopped`, waits for the running one, and destroys the state on its thread.
  /// Never blocks. A worker that was stopped stays so.
  ///
  /// **Completion**: when the state is destroyed.
  /// **Cancellation**: terminal; ends the wait, not the stopping.
  /// **Errors**: `operation_aborted`.
  [[nodiscard]] asio::awaitable<void> stop() { return core::stop(core_); }

  /// The number of calls that run, are queued, or wait for admission; those that wait for the start are not among them.
  std::size_t depth() const noexcept { return core_->depth(); }

  /// Whether the calling thread is the worker's.
  bool on_own_thread() const noexcept { return core_->on_own_thread(); }

 private:
  using core = detail::worker_core<State>;

  call_options made_now(call_options options) const noexcept {
    options.start_timeout(*core_->time());
    return options;
  }

  static asio::awaitable<void> start(std::shared_ptr<core> self) {
    co_await core::started(self, std::nullopt);
    if (self->stopped()) throw error(errc::stopped);
  }

  std::shared_ptr<core> core_;
};

ROSTER_END_NAMESPACE
