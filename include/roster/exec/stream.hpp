#pragma once

#include <roster/detail/cancel_spawned.hpp>
#include <roster/detail/channel.hpp>
#include <roster/detail/closing_service.hpp>
#include <roster/detail/initiate.hpp>
#include <roster/detail/pending_handler.hpp>
#include <roster/exec/run_context.hpp>
#include <roster/exec/sink.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/strand.hpp>

#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

template <typename Chunk>
class stream;

namespace detail {

/// What a dropped stream cancels: the call that feeds it, which may still be waiting for its turn.
template <typename Chunk>
class stream_feed final : public closable {
 public:
  explicit stream_feed(const asio::any_io_executor& home) : executor(home), strand_(executor) {}

  void start(asio::awaitable<void> call) {
    // The handler keeps the signal until the coroutine, down to its outermost frame, has ended; no longer, because what
    // co_spawn puts into its slot holds the strand.
    auto signal = std::make_shared<asio::cancellation_signal>();
    signal_ = signal;
    const auto slot = signal->slot();
    auto keep_alive = [signal = std::move(signal)](const std::exception_ptr&) noexcept {};
    asio::co_spawn(*strand_, std::move(call), asio::bind_cancellation_slot(slot, std::move(keep_alive)));
  }

  void cancel() noexcept {
    if (closed_.load(std::memory_order_acquire)) return;
    auto self = std::static_pointer_cast<stream_feed>(shared_from_this());
    asio::post(*strand_, [self = std::move(self), weak_signal = signal_] {
      if (auto signal = weak_signal.lock()) cancel_spawned(self->strand_, std::move(signal));
    });
  }

  void context_closed() noexcept override {
    closed_.store(true, std::memory_order_release);
    strand_.reset();
    executor = nullptr;
  }

  asio::any_io_executor executor;  // may be a strand, which must not outlive the context

 private:
  std::optional<asio::strand<asio::any_io_executor>> strand_;  // must not outlive the context
  std::atomic<bool> closed_{false};
  std::weak_ptr<asio::cancellation_signal> signal_;
};

template <typename Chunk>
stream<Chunk> make_stream(std::shared_ptr<channel<Chunk>> source, std::shared_ptr<stream_feed<Chunk>> feed);

}  // namespace detail

/// What a streaming call produces, chunk by chunk. Move-only; one consumer.
///
/// The producing call starts when the stream is asked for, not when it is first read. The stream is bounded: a slow reader
/// slows the engine's thread, never the loop. Dropping it stops the engine at its next step. Completing a `next` that had to
/// wait, or dropping the stream, posts a handler; when memory for that cannot be had, or the chunk's move constructor throws,
/// the program terminates, since there is nobody left to tell.
///
/// **Thread safety**: for the consumer only, one `next` at a time; `cancel` and the destructor belong to the consumer too.
///
///     while (auto chunk = co_await chunks.next()) show(*chunk);
template <typename Chunk>
class [[nodiscard]] stream {
 public:
  /// What `next` yields.
  using value_type = Chunk;

  /// Takes the stream over. The other can only be destroyed or assigned to.
  stream(stream&&) noexcept = default;

  /// Cancels its own stream, takes the other over.
  stream& operator=(stream&& other) noexcept {
    if (this != &other) {
      cancel();
      source_ = std::move(other.source_);
      feed_ = std::move(other.feed_);
    }
    return *this;
  }
  ~stream() { cancel(); }

  /// The next chunk; nothing once the stream has ended.
  ///
  /// **Completion**: with a chunk, in the order produced; at once, without suspending, when one is buffered. A loop over a
  /// stream whose producer keeps up therefore need not yield.
  /// **Executor**: resumes on the coroutine's own.
  /// **Cancellation**: terminal; ends this wait only. No chunk is lost, and `next` may be called again. Asio's `||` with a
  /// timer can drop one: where both end in the same turn of the loop, it keeps one result and destroys the other.
  /// **Errors**: what the engine threw, once, after the chunks before it; `stopped` when the engine's thread was shut down;
  /// `operation_aborted` when cancelled, and once after `cancel`.
  [[nodiscard]] asio::awaitable<std::optional<Chunk>> next() { return next(source_); }

  /// `next` for any completion token. Handler signature: `void(std::exception_ptr, std::optional<Chunk>)`.
  ///
  /// **Completion**: exactly once, never inside this call unless the handler's immediate executor (Boost 1.82) says so.
  /// **Executor**: the handler's associated executor, the stream's by default.
  /// **Cancellation**: terminal, partial and total; ends this wait only.
  /// **Errors**: as `next`.
  template <typename Token>
  [[nodiscard]] auto async_next(Token&& token) {
    return start(source_, feed_ ? feed_->executor : asio::any_io_executor(), std::forward<Token>(token));
  }

  /// Stops the engine at its next step and drops what is buffered. `next` then fails with `operation_aborted` once, and ends.
  void cancel() noexcept {
    if (!source_) return;
    source_->abandon();
    if (!source_->has_ended()) feed_->cancel();
  }

  /// What the engine reported last.
  run_progress progress() const noexcept { return source_->context.progress(); }

 private:
  using source_ptr = std::shared_ptr<detail::channel<Chunk>>;

  friend stream detail::make_stream<Chunk>(source_ptr, std::shared_ptr<detail::stream_feed<Chunk>>);

  template <typename Handler>
  class pending_chunk final : public detail::channel_reader<Chunk> {
   public:
    pending_chunk(Handler&& handler, const asio::any_io_executor& fallback) : pending_(std::move(handler), fallback) {}

    const Handler& handler() const noexcept { return pending_.handler(); }

    void complete(std::shared_ptr<detail::channel_reader<Chunk>> self, std::exception_ptr failure,
                  std::optional<Chunk> chunk) noexcept override {
      pending_.post(std::move(self), std::move(failure), std::move(chunk));
    }

   private:
    detail::pending_handler<Handler, std::exception_ptr, std::optional<Chunk>> pending_;
  };

  stream(source_ptr source, std::shared_ptr<detail::stream_feed<Chunk>> feed) noexcept
      : source_(std::move(source)), feed_(std::move(feed)) {}

  template <typename Token>
  static auto start(source_ptr source, asio::any_io_executor fallback, Token&& token) {
    return detail::initiate<void(std::exception_ptr, std::optional<Chunk>)>(
        std::move(fallback), std::forward<Token>(token),
        []<typename Handler>(Handler handler, const asio::any_io_executor& executor, source_ptr from) {
          std::exception_ptr failure;
          std::optional<Chunk> chunk;
          if (from->try_next(failure, chunk))
            return detail::complete_immediately(std::move(handler), executor, std::move(failure), std::move(chunk));
          auto node = detail::make_node<pending_chunk<Handler>>(std::move(handler), executor);
          const auto slot = asio::get_associated_cancellation_slot(node->handler());
          detail::connect_cancellation<detail::channel_reader<Chunk>>(slot, from, node);
          from->park(std::move(node));
        },
        std::move(source));
  }

  static asio::awaitable<std::optional<Chunk>> next(source_ptr source) {
    std::exception_ptr failure;
    std::optional<Chunk> chunk;
    if (!source->try_next(failure, chunk))
      co_return co_await start(std::move(source), asio::any_io_executor(), asio::use_awaitable);
    if (failure) std::rethrow_exception(std::move(failure));
    co_return chunk;
  }

  source_ptr source_;
  std::shared_ptr<detail::stream_feed<Chunk>> feed_;
};

namespace detail {

template <typename Chunk>
stream<Chunk> make_stream(std::shared_ptr<channel<Chunk>> source, std::shared_ptr<stream_feed<Chunk>> feed) {
  return stream<Chunk>(std::move(source), std::move(feed));
}

template <typename Chunk>
class channel_sink final : public sink<Chunk> {
 public:
  explicit channel_sink(channel<Chunk>& target) noexcept : target_(target) {}
  bool push(Chunk chunk) override { return target_.push(std::move(chunk)); }

 private:
  channel<Chunk>& target_;
};

/// Work that feeds a channel: `produce(offers..., sink<Chunk>&, run_context&)`, on a thread that has `offers` to give. The
/// channel ends when the work is destroyed, so that whoever wraps it can first give back what the call held.
template <typename Chunk, typename Produce>
class stream_work {
 public:
  stream_work(std::shared_ptr<channel<Chunk>> target, Produce produce)
      : target_(std::move(target)), produce_(std::move(produce)) {}
  stream_work(stream_work&&) = default;
  stream_work& operator=(stream_work&&) = delete;
  ~stream_work() {
    if (target_ && ran_) target_->finish(std::move(failure_));
  }

  void operator()(run_context& thread_context) { feed(thread_context); }

  template <typename Engine>
  void operator()(Engine& engine, run_context& thread_context) {
    feed(thread_context, engine);
  }

 private:
  template <typename... Engine>
  void feed(run_context& thread_context, Engine&... engine) {
    ran_ = true;
    thread_context.listen(target_.get());
    try {
      channel_sink<Chunk> out(*target_);
      if (!target_->context.stop_requested()) produce_(engine..., out, target_->context);
    } catch (...) {
      failure_ = std::current_exception();
    }
    thread_context.listen(nullptr);
  }

  std::shared_ptr<channel<Chunk>> target_;
  Produce produce_;
  std::exception_ptr failure_;
  bool ran_ = false;
};

/// Ends the channel of a call that never got to produce. Made before that call's coroutine, whose body may never be entered.
template <typename Chunk>
class finish_on_exit {
 public:
  explicit finish_on_exit(std::shared_ptr<channel<Chunk>> target) : target_(std::move(target)) {}
  finish_on_exit(finish_on_exit&&) noexcept = default;
  finish_on_exit& operator=(finish_on_exit&&) = delete;
  ~finish_on_exit() {
    if (target_) target_->finish(std::move(failure));
  }
  std::exception_ptr failure = make_exception(asio::error::operation_aborted);

 private:
  std::shared_ptr<channel<Chunk>> target_;
};

template <typename Chunk>
asio::awaitable<void> feed_stream(finish_on_exit<Chunk> unstarted, asio::awaitable<void> call) {
  auto end = std::move(unstarted);
  try {
    co_await std::move(call);
    end.failure = nullptr;
  } catch (...) {
    end.failure = std::current_exception();
  }
}

/// Starts `run(work)`, an awaitable that runs `work` on some engine's thread, and returns what `produce` puts into its sink
/// there.
template <typename Chunk, typename Produce, typename Run>
stream<Chunk> start_stream(const asio::any_io_executor& executor, std::size_t capacity,
                           std::optional<call_options::time_point> deadline, Produce produce, Run run) {
  if (capacity == 0) throw error(errc::invalid_argument, "a stream needs room for at least one chunk");
  auto source = std::make_shared<channel<Chunk>>(capacity, deadline);
  if (!executor) {
    source->finish(make_exception(make_error_code(errc::stopped)));
    return make_stream(std::move(source), std::shared_ptr<stream_feed<Chunk>>());
  }
  auto feed = make_closable<stream_feed<Chunk>>(executor);
  feed->start(feed_stream(finish_on_exit<Chunk>(source), run(stream_work<Chunk, Produce>(source, std::move(produce)))));
  return make_stream(std::move(source), std::move(feed));
}

}  // namespace detail

ROSTER_END_NAMESPACE
