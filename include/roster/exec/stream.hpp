#pragma once

#include <roster/call/run_context.hpp>
#include <roster/detail/waiter.hpp>
#include <roster/exec/detail/channel.hpp>
#include <roster/exec/detail/deadlines.hpp>
#include <roster/exec/detail/stream_feed.hpp>

#include <exception>
#include <memory>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

template <typename Chunk>
class stream;

namespace detail {

template <typename Chunk>
stream<Chunk> make_stream(std::shared_ptr<channel<Chunk>> source, std::shared_ptr<stream_feed<Chunk>> feed);

/// A consumer that waits no longer than the stream's deadline, which it keeps in its own context: that of the engine's side may
/// not run.
template <typename Chunk, typename Handler>
class pending_chunk final
    : public pending_waiter<channel_reader<Chunk>, Handler, void(std::exception_ptr, std::optional<Chunk>)> {
  using base = pending_waiter<channel_reader<Chunk>, Handler, void(std::exception_ptr, std::optional<Chunk>)>;

 public:
  using base::base;

  static bool prepare(std::shared_ptr<pending_chunk>& self, const std::shared_ptr<channel<Chunk>>& source) noexcept {
    if (!source->context.deadline()) return true;
    try {
      self->expiry_ = std::make_shared<channel_deadline<Chunk>>(*source->context.deadline(), source);
      deadlines::of(self->pending_.executor(), source->time())->add(self->expiry_);
      return true;
    } catch (...) {
      channel_reader<Chunk>::tell(std::move(self), std::current_exception(), std::nullopt);
      return false;
    }
  }

 private:
  void complete(std::shared_ptr<channel_reader<Chunk>> self, std::exception_ptr failure,
                std::optional<Chunk> chunk) noexcept override {
    if (const auto ended = std::move(expiry_)) ended->withdraw();
    base::complete(std::move(self), std::move(failure), std::move(chunk));
  }

  std::shared_ptr<channel_deadline<Chunk>> expiry_;
};

}  // namespace detail

/// What a streaming call produces, chunk by chunk. Move-only; one consumer.
///
/// The producing call starts when the stream is asked for, not when it is first read. The stream is bounded: a slow reader
/// slows the engine's thread, never the loop. Dropping it stops the engine at its next step.
///
/// At its deadline the stream ends, with `deadline_exceeded` after the chunks before it, unless the engine has finished by
/// then. The deadline is kept in the context of whoever waits for a chunk, and in that of the model or worker.
///
/// If memory for posting a handler runs out, when a `next` that had to wait completes or the stream is dropped, or if the
/// chunk's move constructor throws then, the program terminates.
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
  /// stream whose producer keeps up may therefore never yield.
  /// **Executor**: resumes on the coroutine's own.
  /// **Cancellation**: terminal; ends this wait only. No chunk is lost, and `next` may be called again. Asio's `||` with a
  /// timer can drop one: where both end in the same turn of the loop, it keeps one result and destroys the other.
  /// **Errors**: what the engine threw, once, after the chunks before it; once what kept it from starting;
  /// `deadline_exceeded`, once; `stopped` when the engine's thread was shut down; `operation_aborted` when cancelled, once
  /// after `cancel`, and once when the stream's context was destroyed before the engine was reached.
  [[nodiscard]] asio::awaitable<std::optional<Chunk>> next() { return next(source_); }

  /// `next` for any completion token. Handler signature: `void(std::exception_ptr, std::optional<Chunk>)`.
  ///
  /// **Completion**: exactly once, never inside this call unless the handler's immediate executor (Boost 1.82) says so.
  /// **Executor**: the handler's associated executor, the stream's by default.
  /// **Cancellation**: terminal, partial and total; ends this wait only.
  /// **Errors**: as `next`.
  template <typename Token>
  [[nodiscard]] auto async_next(Token&& token) {
    return start(source_, feed_ ? feed_->executor() : asio::any_io_executor(), std::forward<Token>(token));
  }

  /// Stops the engine at its next step and drops what is buffered. `next` then fails with `operation_aborted` once, and ends.
  void cancel() noexcept {
    if (!source_) return;
    source_->abandon();
    if (!source_->has_finished()) feed_->cancel();
  }

  /// What the engine reported last.
  run_progress progress() const noexcept { return source_->context.progress(); }

 private:
  using source_ptr = std::shared_ptr<detail::channel<Chunk>>;

  friend stream detail::make_stream<Chunk>(source_ptr, std::shared_ptr<detail::stream_feed<Chunk>>);

  template <typename Handler>
  using pending_chunk = detail::pending_chunk<Chunk, Handler>;

  stream(source_ptr source, std::shared_ptr<detail::stream_feed<Chunk>> feed) noexcept
      : source_(std::move(source)), feed_(std::move(feed)) {}

  template <typename Token>
  static auto start(source_ptr source, asio::any_io_executor fallback, Token&& token) {
    return detail::async_wait<void(std::exception_ptr, std::optional<Chunk>), pending_chunk>(
        std::move(fallback), std::move(source), std::forward<Token>(token));
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

}  // namespace detail

ROSTER_END_NAMESPACE
