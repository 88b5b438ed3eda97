#pragma once

#include <roster/call/run_context.hpp>
#include <roster/call/sink.hpp>
#include <roster/capability/capability.hpp>
#include <roster/exec/detail/task_queue.hpp>

#include <boost/system/system_error.hpp>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

/// What a scripted engine has seen so far.
struct scripted_engine_counts {
  std::size_t made = 0;          ///< engines
  std::size_t destroyed = 0;     ///< engines
  std::size_t started = 0;       ///< calls
  std::size_t ended = 0;         ///< calls
  std::size_t stopped = 0;       ///< of these, those that ended because they were asked to stop
  std::size_t most_at_once = 0;  ///< calls in all engines together

  /// Equal when all numbers are.
  friend bool operator==(const scripted_engine_counts&, const scripted_engine_counts&) = default;
};

namespace detail {

/// What the calls of scripted engines wait for: ticks, which a test gives.
class tick_counter {
 public:
  using tick = std::uint64_t;
  static constexpr tick never = (std::numeric_limits<tick>::max)();

  /// Waits for `count` ticks, or until `stop()`, which is asked at each; whether it is to go on. Blocks.
  template <typename Stop>
  bool wait(tick count, Stop stop) {
    std::unique_lock lock(mutex_);  // blocks: a pool or worker thread
    const auto until = count < never - now_ ? now_ + count : never;
    waiter self{task_queue::of_this_thread()};
    waiters_.push_back(&self);
    while (now_ < until && !released_ && !stop()) {
      self.pause();
      changed_.wait(lock, [&] { return !self.paused; });  // blocks: a pool or worker thread
    }
    std::erase(waiters_, &self);
    return now_ >= until && !stop();
  }

  void give() {
    std::lock_guard lock(mutex_);  // short:
    ++now_;
    wake();
  }

  void release() {
    std::lock_guard lock(mutex_);  // short:
    released_ = true;
    wake();
  }

 private:
  // Resumed by whoever gives the tick: from then on its thread counts as one that does something.
  struct waiter {
    void pause() {
      paused = true;
      if (queue) queue->pause_work();
    }
    void resume() {
      if (std::exchange(paused, false) && queue) queue->resume_work();
    }

    task_queue* queue = nullptr;
    bool paused = false;
  };

  void wake() {
    for (auto* each : waiters_)
      each->resume();
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;  // blocks: a pool or worker thread
  std::vector<waiter*> waiters_;
  tick now_ = 0;
  bool released_ = false;
};

/// What a step of a script is given.
template <typename C>
struct script_arguments;

template <unary_capability C>
struct script_arguments<C> {
  std::span<const typename C::input> inputs;
  const typename C::options& options;
  typename C::outputs& outputs;
};

template <streaming_capability C>
struct script_arguments<C> {
  const typename C::request& request;
  sink<typename C::chunk>& chunks;
};

}  // namespace detail

/// An engine that does as a test says, for placements: it answers, pushes, fails, hangs, and lasts as many *ticks* as it is
/// told, which the test gives. It counts what it saw.
///
/// Calls take the scripts of `next_call` in the order in which they start; those that find none take that of `other_calls`. A
/// script is a list of steps; where it ends the call returns. While a call waits for ticks it looks at each whether it is asked
/// to stop, and ends as cancelled then, unless its script ignores that. The end of the `scripted_engine` releases all calls
/// that wait: they end as cancelled.
///
/// **Deadlock**: the end of a pool, or of the loop that a worker belongs to, waits for calls that wait for ticks: declare the
/// `scripted_engine` after those, so that it ends first.
///
/// **Thread safety**: all members may be called concurrently, from any thread; a script is completed before calls start.
///
///     roster::scripted_engine<roster::text_to_text> engine;
///     engine.next_call().wait(2).push("Hello").fail(std::runtime_error("out of memory"));
///     co_await models.add("key", roster::pooled(pool, engine.factory()));
template <capability Capability>
class scripted_engine {
  struct state;
  using arguments = detail::script_arguments<Capability>;

 public:
  /// The steps of a call.
  class script {
   public:
    /// Lasts `ticks`.
    script& wait(std::size_t ticks) { return then(ticks, nullptr); }

    /// Waits for ticks for ever, so until it is asked to stop.
    script& hang() { return then(detail::tick_counter::never, nullptr); }

    /// Throws `what`, which need not be an exception; an `exception_ptr` is rethrown.
    template <typename E>
    script& fail(E what) {
      return then(0, [what = std::move(what)](const arguments&) -> bool {
        if constexpr (std::is_same_v<E, std::exception_ptr>)
          std::rethrow_exception(what);
        else
          throw what;
      });
    }

    /// Calls `function(inputs, options, outputs)`, which fills the outputs.
    template <typename F>
    script& answer(F function) requires(unary_capability<Capability>) {
      return then(0, [function = std::move(function)](const arguments& all) {
        function(all.inputs, all.options, all.outputs);
        return true;
      });
    }

    /// Pushes a chunk; the call ends if nobody wants it.
    template <typename Chunk>
    script& push(Chunk chunk) requires(streaming_capability<Capability>) {
      return then(0, [chunk = std::move(chunk)](const arguments& all) { return all.chunks.push(chunk); });
    }

    /// Goes on when it is asked to stop, and when nobody wants its chunks.
    script& ignore_stop() {
      ignores_stop_ = true;
      return *this;
    }

   private:
    friend class scripted_engine;

    struct step {
      detail::tick_counter::tick ticks;
      std::function<bool(const arguments&)> act;  // false if nobody wants more
    };

    script& then(detail::tick_counter::tick ticks, std::function<bool(const arguments&)> act) {
      steps_.push_back({ticks, std::move(act)});
      return *this;
    }

    std::vector<step> steps_;
    bool ignores_stop_ = false;
  };

  /// What a placement makes.
  class engine {
   public:
    engine(const engine&) = delete;
    engine& operator=(const engine&) = delete;
    ~engine() {
      state_->count([](auto& counts) { ++counts.destroyed; });
    }

    /// Plays a script.
    template <typename C = Capability>
    requires(unary_capability<C>) void run(std::span<const typename C::input> inputs, const typename C::options& options,
                                           typename C::outputs& outputs, run_context& context) {
      state_->play(arguments{inputs, options, outputs}, context);
    }

    /// Plays a script.
    template <typename C = Capability>
    requires(streaming_capability<C>) void run(const typename C::request& request, sink<typename C::chunk>& chunks,
                                               run_context& context) {
      state_->play(arguments{request, chunks}, context);
    }

   private:
    friend class scripted_engine;

    explicit engine(std::shared_ptr<state> from) : state_(std::move(from)) {
      state_->count([](auto& counts) { ++counts.made; });
    }

    const std::shared_ptr<state> state_;
  };

  /// Makes engines. Copyable.
  class factory_type {
   public:
    /// An engine of this script.
    engine operator()() const { return engine(state_); }

   private:
    friend class scripted_engine;
    explicit factory_type(std::shared_ptr<state> of_all) : state_(std::move(of_all)) {}
    std::shared_ptr<state> state_;
  };

  scripted_engine() = default;
  scripted_engine(const scripted_engine&) = delete;
  scripted_engine& operator=(const scripted_engine&) = delete;
  ~scripted_engine() { state_->ticks.release(); }

  /// For placements. A reference, as g++ 12 needs callables that own something to be named.
  const factory_type& factory() const noexcept { return factory_; }

  /// The script, still empty, of the next call for which there is none yet. Complete it before that call starts.
  script& next_call() {
    std::list<std::shared_ptr<script>> fresh(1, std::make_shared<script>());
    auto& empty = *fresh.front();
    std::lock_guard lock(state_->mutex);  // short:
    state_->scripts.splice(state_->scripts.end(), fresh);
    return empty;
  }

  /// The script, empty at first, of all calls that have none of their own.
  script& other_calls() noexcept { return *state_->others; }

  /// Gives a tick to each call that waits for one now.
  void tick() { state_->ticks.give(); }

  /// What was seen so far.
  scripted_engine_counts counts() const {
    std::lock_guard lock(state_->mutex);  // short:
    return state_->counts;
  }

 private:
  struct state {
    template <typename F>
    void count(F change) {
      std::lock_guard lock(mutex);  // short:
      change(counts);
    }

    void play(const arguments& all, run_context& context) {
      count([](auto& seen) {
        ++seen.started;
        seen.most_at_once = (std::max)(seen.most_at_once, seen.started - seen.ended);
      });
      struct end_of_call {
        state& in;
        ~end_of_call() {
          in.count([](auto& seen) { ++seen.ended; });
        }
      } const ending{*this};
      const auto steps = take_script();
      const auto stop = [&] { return !steps->ignores_stop_ && context.stop_requested(); };
      for (const auto& step : steps->steps_) {
        if (step.ticks > 0 && !ticks.wait(step.ticks, stop)) {  // blocks: a pool or worker thread
          count([](auto& seen) { ++seen.stopped; });
          throw boost::system::system_error(detail::operation_aborted());
        }
        if (step.act && !step.act(all) && !steps->ignores_stop_) return;
      }
    }

    std::shared_ptr<const script> take_script() {
      std::list<std::shared_ptr<script>> first;
      std::lock_guard lock(mutex);  // short:
      if (scripts.empty()) return others;
      first.splice(first.end(), scripts, scripts.begin());
      return first.front();
    }

    std::mutex mutex;
    scripted_engine_counts counts;
    std::list<std::shared_ptr<script>> scripts;
    const std::shared_ptr<script> others = std::make_shared<script>();
    detail::tick_counter ticks;
  };

  const std::shared_ptr<state> state_ = std::make_shared<state>();
  const factory_type factory_{state_};
};

ROSTER_END_NAMESPACE
