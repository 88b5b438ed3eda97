#pragma once

#include <roster/call/call_options.hpp>
#include <roster/call/run_context.hpp>
#include <roster/call/sink.hpp>
#include <roster/exec/detail/channel.hpp>
#include <roster/exec/detail/stream_feed.hpp>
#include <roster/exec/stream.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

template <typename Chunk>
class channel_sink final : public sink<Chunk> {
 public:
  explicit channel_sink(channel<Chunk>& target) noexcept : target_(target) {}
  bool push(Chunk chunk) override { return target_.push(std::move(chunk)); }

 private:
  channel<Chunk>& target_;
};

/// Work that feeds a channel: `produce(sink<Chunk>&, run_context&)`, preceded by the engine if the thread has one. The
/// channel finishes when the work is destroyed, so that wrappers can first return what the call held.
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

/// Finishes the channel if the call fails before the engine starts. A parameter of the coroutine, so it also works if that is
/// destroyed before its first resume.
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
                           std::optional<call_options::time_point> deadline, std::shared_ptr<time_source> time, Produce produce,
                           Run run) {
  if (capacity == 0) throw error(errc::invalid_argument, "a stream needs room for at least one chunk");
  // fault k1: `std::move(time)` -> `steady_time()`: a stream tells another time than its call
  auto source = std::make_shared<channel<Chunk>>(capacity, deadline, std::move(time));
  if (!executor) {
    source->finish(make_exception(make_error_code(errc::stopped)));
    return make_stream(std::move(source), std::shared_ptr<stream_feed<Chunk>>());
  }
  auto feed = make_context_bound<stream_feed<Chunk>>(executor);
  feed->start(feed_stream(finish_on_exit<Chunk>(source), run(stream_work<Chunk, Produce>(source, std::move(produce)))));
  return make_stream(std::move(source), std::move(feed));
}

}  // namespace detail

ROSTER_END_NAMESPACE
