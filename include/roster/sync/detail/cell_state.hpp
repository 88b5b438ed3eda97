#pragma once

#include <roster/detail/asio.hpp>
#include <roster/detail/cancel_spawned.hpp>
#include <roster/detail/context_bound.hpp>
#include <roster/detail/shared_queue.hpp>
#include <roster/detail/waiter.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/strand.hpp>
#include <boost/system/system_error.hpp>

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// What a flight runs on. Each flight has its own, which identifies it: whatever runs there was started by the flight.
using flight_strand = asio::strand<asio::any_io_executor>;

template <typename Executor>
bool is_strand([[maybe_unused]] const Executor& executor, [[maybe_unused]] const flight_strand& strand) noexcept {
  if constexpr (std::is_same_v<Executor, asio::any_io_executor>) {
    const auto* target = executor.template target<flight_strand>();
    return target && *target == strand;
  } else if constexpr (std::is_same_v<Executor, flight_strand>) {
    return executor == strand;
  } else {
    return false;
  }
}

/// The failure of an initialiser that was destroyed before it ended: an operation that it awaited could not be started.
class flight_lost final : public boost::system::system_error {
 public:
  flight_lost() : system_error(asio::error::operation_aborted, "an operation of the initialiser could not be started") {}
};

/// One run of an initialiser, with its own cancellation signal. Each caller brings one; most never start.
template <typename T>
class flight {
 public:
  flight() = default;
  flight(const flight&) = delete;
  flight& operator=(const flight&) = delete;
  virtual ~flight() = default;
  virtual asio::awaitable<T> start() = 0;

  /// Makes the strand, before the cell's mutex is taken: that allocates. Nothing if the cell's context is gone.
  void prepare(const asio::any_io_executor& executor) {
    if (executor) strand.emplace(executor);
  }

  asio::cancellation_signal signal;
  std::optional<flight_strand> strand;
  bool running = false;        ///< its coroutine runs; on the strand
  std::exception_ptr failure;  ///< what starting it threw, if that is known; on the strand
};

/// A caller that waits for a cell: completed with an error or the value.
template <typename T>
class cell_waiter : public waiter<cell_waiter<T>, std::exception_ptr, std::shared_ptr<const T>> {
 public:
  explicit cell_waiter(std::shared_ptr<flight<T>> own) : own_flight(std::move(own)) {}

  /// Whether the call is awaited by a coroutine that runs on that strand and can be cancelled.
  virtual bool awaited_on(const flight_strand&) const noexcept { return false; }

  std::shared_ptr<flight<T>> own_flight;
};

/// The states of a cell:
///
///     empty     no value, no flight, no waiters
///     running   one flight, at least one waiter; all of them get its outcome
///     stopping  one flight whose waiters have all left, and which was asked to stop. It may still produce a value, which
///               counts. Waiters that came since do not get its failure: the first of them starts the next flight
///     ready     a value, for ever; `ready_` points to it
///     closed    the cell or its context is gone
///
/// Waiters are completed in the order of their arrival, and after the mutex is released.
template <typename T>
class cell_state final : public context_bound {
 public:
  using context_bound::context_bound;

  const T* try_get() const noexcept { return ready_.load(std::memory_order_acquire); }

  std::shared_ptr<const T> value() noexcept {
    const T* ready = try_get();
    return ready ? std::shared_ptr<const T>(this->shared_from_this(), ready) : nullptr;
  }

  /// Joins the flight, or starts the waiter's own. Refuses a waiter that the flight itself awaits: it would wait for ever.
  /// Throws if the strand of its own flight cannot be made.
  void enqueue(std::shared_ptr<cell_waiter<T>> waiter) {
    waiter->own_flight->prepare(this->executor());
    std::shared_ptr<flight<T>> starting;
    auto found = phase::running;
    {
      std::lock_guard lock(mutex_);  // short:
      const bool from_inside = flight_ && waiter->awaited_on(*flight_->strand);
      // fault b10: `from_inside` -> `false`: an initialiser may wait for itself
      if (phase_ == phase::ready || phase_ == phase::closed || from_inside) {
        found = phase_;
      } else {
        // fault m2: `phase_ == phase::empty` -> `phase_ == phase::empty || phase_ == phase::stopping`:
        //   a newcomer does not wait for the end of a flight that stops
        if (phase_ == phase::empty) {
          starting = make_current(waiter->own_flight);
        }
        waiters_.push_back(std::move(waiter));
      }
    }
    if (starting) return launch(std::move(starting));
    if (!waiter) return;
    if (found == phase::ready)
      tell(std::move(waiter), nullptr, value());
    else if (found == phase::closed)
      tell(std::move(waiter), make_exception(asio::error::operation_aborted), nullptr);
    else
      tell(std::move(waiter), std::make_exception_ptr(error(errc::would_deadlock, "an initialiser awaits its own cell")),
           nullptr);
  }

  /// Detaches one waiter; the last one to leave asks the flight to stop.
  void cancel(std::shared_ptr<cell_waiter<T>> waiter) noexcept {
    std::shared_ptr<flight<T>> unwanted;
    {
      std::lock_guard lock(mutex_);  // short:
      if (!waiter->queued()) return;
      waiters_.erase(*waiter);
      // fault b9: `waiters_.empty()` -> `true`: the first caller's cancellation kills the flight
      if (waiters_.empty() && phase_ == phase::running) {
        // fault m2: drop: a flight that was asked to stop takes newcomers for its own
        phase_ = phase::stopping;
        unwanted = flight_;
      }
    }
    tell(std::move(waiter), make_exception(asio::error::operation_aborted), nullptr);
    if (unwanted) stop(std::move(unwanted));
  }

  /// The cell is destroyed: aborts the waiters and asks the flight to stop.
  void abandon() noexcept {
    if (auto unwanted = close_and_detach()) stop(std::move(unwanted));
  }

  void close() noexcept override { close_and_detach(); }

 private:
  enum class phase { empty, running, stopping, ready, closed };

  /// Finishes the flight if its frame is destroyed first: its context died, or an operation that the initialiser awaited could
  /// not be started, which destroys the coroutine. The cell can be used again unless the context closed it.
  class finish_on_exit {
   public:
    finish_on_exit(cell_state& state, flight<T>& current) : state_(&state), flight_(current) { current.running = true; }
    finish_on_exit(const finish_on_exit&) = delete;
    finish_on_exit& operator=(const finish_on_exit&) = delete;
    ~finish_on_exit() {
      if (!state_) return;
      state_->finish(flight_, flight_.failure ? flight_.failure : std::make_exception_ptr(flight_lost()));
    }
    void done() noexcept { state_ = nullptr; }

   private:
    cell_state* state_;
    const flight<T>& flight_;
  };

  /// Keeps the signal until the coroutine, down to its outermost frame, has ended.
  struct keep_alive {
    std::shared_ptr<flight<T>> owner;
    void operator()(const std::exception_ptr&) const noexcept {}
  };

  static void tell(std::shared_ptr<cell_waiter<T>> waiter, std::exception_ptr failure,
                   std::shared_ptr<const T> value) noexcept {
    waiter->own_flight.reset();  // holds the strand once it has started, and must not travel to another context
    cell_waiter<T>::tell(std::move(waiter), std::move(failure), std::move(value));
  }

  /// Makes a flight the cell's. Under the mutex.
  std::shared_ptr<flight<T>> make_current(std::shared_ptr<flight<T>> starting) noexcept {
    phase_ = phase::running;
    flight_ = starting;
    return starting;
  }

  /// Starts a flight on its strand, where its coroutine runs and is cancelled.
  void launch(std::shared_ptr<flight<T>> starting) noexcept {
    const auto strand = *starting->strand;
    asio::post(strand, [self = context_bound::shared(this), starting = std::move(starting)] {
      try {
        asio::co_spawn(*starting->strand, run(self, starting),
                       asio::bind_cancellation_slot(starting->signal.slot(), keep_alive{starting}));
      } catch (...) {
        starting->failure = std::current_exception();
        if (!starting->running) self->finish(*starting, starting->failure);  // else its frame is yet to be destroyed
      }
    });
  }

  void stop(std::shared_ptr<flight<T>> unwanted) noexcept {
    const auto strand = *unwanted->strand;
    asio::post(strand, [unwanted = std::move(unwanted)] {
      cancel_spawned(unwanted->strand, std::shared_ptr<asio::cancellation_signal>(unwanted, &unwanted->signal));
    });
  }

  static asio::awaitable<void> run(std::shared_ptr<cell_state> self, std::shared_ptr<flight<T>> current) {
    finish_on_exit unfinished(*self, *current);
    std::exception_ptr failure;
    try {
      self->value_.emplace(co_await current->start());
    } catch (...) {
      failure = std::current_exception();
    }
    unfinished.done();
    self->finish(*current, std::move(failure));
  }

  void finish(const flight<T>& current, std::exception_ptr failure) noexcept {
    shared_queue<cell_waiter<T>> told;
    std::shared_ptr<flight<T>> finished, next;
    {
      std::lock_guard lock(mutex_);  // short:
      // Else the cell was closed, or this flight finished before its frame was destroyed.
      if (flight_.get() != &current) return;
      finished.swap(flight_);
      if (!failure) {
        phase_ = phase::ready;
        ready_.store(&*value_, std::memory_order_release);  // with the acquire in try_get: publishes the value
        told.take_all(waiters_);
        // fault b9: never: a newcomer is told that somebody else was cancelled
      } else if (phase_ == phase::stopping && !waiters_.empty()) {
        next = make_current(waiters_.front().own_flight);
      } else {
        // fault b9: `phase::empty` -> `phase::closed`: a cell retains its failure
        phase_ = phase::empty;
        told.take_all(waiters_);
      }
    }
    while (auto waiter = told.pop_front())
      tell(std::move(waiter), failure, failure ? nullptr : value());
    if (next) launch(std::move(next));
  }

  std::shared_ptr<flight<T>> close_and_detach() noexcept {
    shared_queue<cell_waiter<T>> told;
    std::shared_ptr<flight<T>> unwanted;
    {
      std::lock_guard lock(mutex_);  // short:
      if (phase_ != phase::ready) phase_ = phase::closed;
      told.take_all(waiters_);
      unwanted.swap(flight_);
    }
    while (auto waiter = told.pop_front())
      tell(std::move(waiter), make_exception(asio::error::operation_aborted), nullptr);
    return unwanted;
  }

  std::atomic<const T*> ready_{nullptr};
  std::mutex mutex_;
  phase phase_ = phase::empty;
  std::shared_ptr<flight<T>> flight_;
  shared_queue<cell_waiter<T>> waiters_;
  std::optional<T> value_;
};

}  // namespace detail

ROSTER_END_NAMESPACE
