// The queue of a blocking pool, its threads and its admission, under every schedule.

#include <roster/exec/time_source.hpp>

#include "tests/model/stepped.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace {

using roster::detail::enqueue_mode;
using test::model::await;
using test::model::ensure;
using test::model::explorer;
using test::model::point;
using task_queue = roster::detail::task_queue;

/// A pool, with actors for its threads.
class queue_model {
 public:
  class work final : public roster::detail::task {
   public:
    work(queue_model& model, enqueue_mode mode) : task(std::nullopt, *roster::steady_time(), mode), model_(model) {}

    void execute() noexcept override {
      ensure(!executed_, "work runs once");
      executed_ = true;
      model_.began();
      point();
      if (on_run) on_run();
      model_.ended();
    }
    void deliver(std::shared_ptr<task>) noexcept override {
      ensure(executed_, "only work that ran is delivered");
      ensure(!interruption, "nothing is delivered to a caller that has left");
      completed();
    }
    void abandon(std::shared_ptr<task>, roster::error_code reason) noexcept override {
      ensure(!executed_, "only work that did not run is abandoned");
      reason_ = reason;
      completed();
    }
    bool detachable() const noexcept override { return detaches; }
    void interrupt(std::shared_ptr<task>, roster::error_code reason) noexcept override {
      context.request_stop();
      interruption = reason;
      completed();
    }

    bool done() const { return completions_ == 1; }
    bool executed() const { return executed_; }
    roster::error_code reason() const { return reason_; }

    std::function<void()> on_run;
    bool detaches = false;
    roster::error_code interruption;

   private:
    void completed() { ensure(completions_++ == 0, "a caller is told once"); }

    queue_model& model_;
    bool executed_ = false;
    int completions_ = 0;
    roster::error_code reason_;
  };

  class idle_wait final : public roster::detail::idle_waiter {
   public:
    explicit idle_wait(queue_model& model) : model_(model) {}
    void complete(std::shared_ptr<idle_waiter>, roster::error_code code) noexcept override {
      ensure(!done_, "whoever waits for an idle queue is told once");
      ensure(code || model_.running_ == 0, "when idle nothing runs");
      done_ = true;
    }
    bool done() const { return done_; }

   private:
    queue_model& model_;
    bool done_ = false;
  };

  queue_model(std::size_t threads, std::size_t limit)
      : queue(std::make_shared<task_queue>(threads, limit, roster::steady_time())), threads_(threads), limit_(limit) {}

  std::shared_ptr<work> make(enqueue_mode mode = enqueue_mode::wait_if_full) {
    return works_.emplace_back(std::make_shared<work>(*this, mode));
  }

  /// Work that has a deadline.
  std::shared_ptr<work> make_timed() {
    auto one = make();
    one->expiry = std::make_shared<roster::detail::task_deadline>(roster::clock::time_point(), *one, queue);
    return one;
  }

  void push(const std::shared_ptr<work>& one) { queue->enqueue(one); }

  /// Whether it was accepted.
  bool try_push(const std::shared_ptr<work>& one) {
    queue->enqueue(one);
    if (one->done() && one->reason()) return false;
    ensure(++accepted_ - finished_ <= threads_ + limit_, "no more is accepted than there is room for");
    return true;
  }

  /// Waits until all work is done, and ends the threads.
  void close() {
    await([&] {
      for (const auto& one : works_)
        if (!one->done()) return false;
      return true;
    });
    queue->close();
  }

  /// At the end: everybody was told.
  void check_end() {
    for (const auto& one : works_)
      ensure(one->done(), "everybody is told");
    const auto now = queue->count();
    ensure(now.running == 0 && now.queued == 0 && now.waiting == 0, "nothing is left");
  }

  const std::shared_ptr<task_queue> queue;

 private:
  void began() { ensure(++running_ <= threads_, "no more runs than there are threads"); }
  void ended() {
    --running_;
    ++finished_;
  }

  const std::size_t threads_, limit_;
  std::size_t running_ = 0, accepted_ = 0, finished_ = 0;
  std::vector<std::shared_ptr<work>> works_;
};

std::shared_ptr<queue_model> make_model(explorer& schedules, std::size_t threads, std::size_t limit) {
  auto s = std::make_shared<queue_model>(threads, limit);
  for (std::size_t i = 0; i < threads; ++i)
    schedules.actor("thread", [s] { s->queue->serve(); });
  return s;
}

}  // namespace

TEST_CASE("Under every schedule two threads take all work, in order", "[model][pool]") {
  test::model::explore("three pushes, two threads", 2, [](explorer& schedules) {
    auto s = make_model(schedules, 2, 1);
    auto first = s->make();
    auto second = s->make();
    auto third = s->make();
    first->on_run = [other = second.get()] { await([&] { return other->executed(); }); };  // on the other thread
    second->on_run = [other = first.get()] { ensure(other->executed(), "first come, first served"); };
    schedules.actor("caller", [s, first, second, third] {
      s->push(first);
      s->push(second);
      s->push(third);
      s->close();
    });
    return [s] { s->check_end(); };
  });
}

TEST_CASE("Under every schedule no more is accepted than there is room for, and no less", "[model][pool]") {
  test::model::explore("three try_pushes, room for two", 2, [](explorer& schedules) {
    auto s = make_model(schedules, 1, 1);
    auto refused = std::make_shared<int>(0);
    auto attempt = [s, refused](const std::shared_ptr<queue_model::work>& one) {
      if (s->try_push(one)) return;
      ++*refused;
      ensure(one->reason() == roster::errc::queue_full, "refused for want of room");
    };
    schedules.actor(
        "caller", [s, attempt, first = s->make(enqueue_mode::refuse_if_full), second = s->make(enqueue_mode::refuse_if_full)] {
          attempt(first);
          attempt(second);
          s->close();
        });
    schedules.actor("other caller", [attempt, third = s->make(enqueue_mode::refuse_if_full)] { attempt(third); });
    return [s, refused] {
      s->check_end();
      ensure(*refused <= 1, "two are accepted");
    };
  });
}

TEST_CASE("Under every schedule there is room again as soon as a caller knows that its call is over", "[model][pool]") {
  test::model::explore("a call after another", 3, [](explorer& schedules) {
    auto s = make_model(schedules, 1, 0);
    schedules.actor("caller",
                    [s, first = s->make(enqueue_mode::refuse_if_full), second = s->make(enqueue_mode::refuse_if_full)] {
                      ensure(s->try_push(first), "nothing runs yet");
                      await([&] { return first->done(); });
                      ensure(s->try_push(second), "nothing runs any more");
                      s->close();
                    });
    return [s] { s->check_end(); };
  });
}

TEST_CASE("Under every schedule a cancelled call is removed or runs, and lets the next one move up", "[model][pool]") {
  test::model::explore("a cancellation", 2, [](explorer& schedules) {
    auto s = make_model(schedules, 1, 0);
    auto cancelled = s->make();
    auto next = s->make();
    schedules.actor("caller", [s, cancelled, next] {
      s->push(cancelled);
      s->push(next);
      s->close();
    });
    schedules.actor("canceller", [s, cancelled] {
      await([&] { return cancelled->queued() || cancelled->executed(); });
      s->queue->cancel(cancelled);
    });
    return [s, cancelled, next] {
      s->check_end();
      ensure(next->executed(), "nobody cancelled the next call");
      ensure(cancelled->executed() || cancelled->reason() == boost::asio::error::operation_aborted,
             "removed, if it did not run");
    };
  });
}

TEST_CASE("Under every schedule a call whose deadline passes is refused, leaves, is interrupted, or has ended",
          "[model][pool]") {
  test::model::explore("a deadline", 2, [](explorer& schedules) {
    auto s = make_model(schedules, 1, 0);
    auto late = s->make_timed();
    auto next = s->make();
    late->detaches = true;
    schedules.actor("caller", [s, late, next] {
      s->push(late);
      s->push(next);
      s->close();
    });
    schedules.actor("time", [expiry = late->expiry] { expiry->passed(); });
    return [s, late, next] {
      s->check_end();
      ensure(next->executed(), "no deadline of another's matters");
      ensure(late->executed() || late->reason() == roster::errc::deadline_exceeded, "late, if it did not run");
      ensure(!late->interruption || (late->executed() && late->context.stop_requested()), "only what runs is interrupted");
    };
  });
}

TEST_CASE("Under every schedule a call that is cancelled at its deadline is told once", "[model][pool]") {
  test::model::explore("a deadline and a cancellation", 1, [](explorer& schedules) {
    auto s = make_model(schedules, 1, 0);
    auto late = s->make_timed();
    schedules.actor("caller", [s, late] {
      s->push(late);
      s->close();
    });
    schedules.actor("time", [expiry = late->expiry] { expiry->passed(); });
    schedules.actor("canceller", [s, late] {
      await([&] { return late->queued() || late->executed() || late->done(); });
      s->queue->cancel(late);
    });
    return [s] { s->check_end(); };
  });
}

TEST_CASE("Under every schedule clean-up runs, even if its caller is cancelled", "[model][pool]") {
  test::model::explore("a cancelled clean-up", 2, [](explorer& schedules) {
    auto s = make_model(schedules, 1, 0);
    auto first = s->make();
    auto cleanup = s->make(enqueue_mode::cleanup);
    schedules.actor("caller", [s, first, cleanup] {
      s->push(first);
      s->push(cleanup);
      s->close();
    });
    schedules.actor("canceller", [s, cleanup] {
      await([&] { return cleanup->queued() || cleanup->executed(); });
      s->queue->cancel(cleanup);
    });
    return [s, cleanup] {
      s->check_end();
      ensure(cleanup->executed(), "clean-up is not taken back");
    };
  });
}

TEST_CASE("Under every schedule a pool that stops leaves nobody waiting, and becomes idle", "[model][pool]") {
  test::model::explore("a stop", 2, [](explorer& schedules) {
    auto s = make_model(schedules, 1, 1);
    auto first = s->make();
    auto second = s->make();
    auto cleanup = s->make(enqueue_mode::cleanup);
    auto idle_wait = std::make_shared<queue_model::idle_wait>(*s);
    schedules.actor("caller", [s, first, second] {
      s->push(first);
      s->push(second);
    });
    schedules.actor("owner", [s, idle_wait, cleanup] {
      s->queue->stop();
      s->queue->enqueue(cleanup);
      s->queue->enqueue(idle_wait);
      await([&] { return idle_wait->done(); });
      ensure(cleanup->executed(), "when it is idle the clean-up has run");
      s->close();
    });
    return [s, first, second] {
      s->check_end();
      for (const auto& one : {first, second})
        ensure(one->executed() || one->reason() == roster::errc::stopped, "stopped, if it did not run");
    };
  });
}

TEST_CASE("Under every schedule a pool that closes lets its threads go and tells everybody", "[model][pool]") {
  test::model::explore("a close", 2, [](explorer& schedules) {
    auto s = make_model(schedules, 1, 0);
    auto first = s->make();
    auto second = s->make();
    first->on_run = [&one = *first] { await([&one] { return one.context.stop_requested(); }); };
    schedules.actor("caller", [s, first, second] {
      s->push(first);
      s->push(second);
    });
    schedules.actor("canceller", [s, second] {
      await([&] { return second->queued() || second->executed() || second->done(); });
      s->queue->cancel(second);
    });
    schedules.actor("owner", [s] { s->queue->close(); });
    return [s] { s->check_end(); };
  });
}
