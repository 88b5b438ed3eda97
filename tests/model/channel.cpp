// A stream's channel under every schedule.

#include "tests/model/stepped.hpp"

#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

namespace {

using test::model::await;
using test::model::ensure;
using test::model::explorer;
using channel = roster::detail::channel<int>;

/// A channel and what its consumer got.
class channel_model {
 public:
  explicit channel_model(std::size_t capacity) : source(capacity, std::nullopt, roster::steady_time()) {}

  class reader final : public roster::detail::channel_reader<int> {
   public:
    void complete(std::shared_ptr<channel_reader>, std::exception_ptr failure, std::optional<int> chunk) noexcept override {
      ensure(!done, "a read completes once");
      done = true;
      failed = !!failure;
      value = chunk;
    }
    bool done = false;
    bool failed = false;
    std::optional<int> value;
  };

  /// Reads as a stream does. False at the end, and when the read failed.
  bool next() { return read(std::make_shared<reader>()); }

  bool read(const std::shared_ptr<reader>& one) {
    std::exception_ptr failure;
    std::optional<int> chunk;
    if (source.try_next(failure, chunk)) {
      one->done = true;
      one->failed = !!failure;
      one->value = chunk;
    } else {
      source.enqueue(one);
      await([&] { return one->done; });
    }
    failures += one->failed;
    if (one->value) got.push_back(*one->value);
    return one->value.has_value();
  }

  channel source;
  std::vector<int> got;
  int failures = 0;
};

}  // namespace

TEST_CASE("Under every schedule a stream brings all chunks in order, and its failure after them", "[model][stream]") {
  test::model::explore("three chunks through a ring of one", 3, [](explorer& schedules) {
    auto s = std::make_shared<channel_model>(1);
    schedules.actor("producer", [s] {
      for (int i = 0; i < 3; ++i)
        ensure(s->source.push(int{i}), "the consumer reads on");
      s->source.finish(std::make_exception_ptr(std::runtime_error("cause")));
    });
    schedules.actor("consumer", [s] {
      while (s->next()) {
      }
      ensure(!s->next(), "the end stays the end");
    });
    return [s] {
      ensure(s->got == std::vector{0, 1, 2}, "all chunks come, in order");
      ensure(s->failures == 1, "the failure comes once");
    };
  });
}

TEST_CASE("Under every schedule a cancelled read loses no chunk", "[model][stream]") {
  test::model::explore("a read is cancelled", 4, [](explorer& schedules) {
    auto s = std::make_shared<channel_model>(2);
    auto parked = std::make_shared<bool>(false);
    schedules.actor("producer", [s] {
      ensure(s->source.push(0) && s->source.push(1), "the consumer reads on");
      s->source.finish(nullptr);
    });
    schedules.actor("consumer", [s] {
      auto cancelled = std::make_shared<channel_model::reader>();
      std::exception_ptr failure;
      std::optional<int> chunk;
      if (s->source.try_next(failure, chunk)) {
        ensure(chunk.has_value(), "the stream has not ended");
      } else {
        s->source.enqueue(cancelled);
        s->source.cancel(cancelled);  // by the consumer's own executor, as slots are emitted
        await([&] { return cancelled->done; });
        ensure(cancelled->failed || cancelled->value, "the read ends with a chunk, or was cancelled");
        chunk = cancelled->value;
      }
      if (chunk) s->got.push_back(*chunk);
      while (s->next()) {
      }
    });
    return [s] {
      ensure(s->got == std::vector{0, 1}, "no chunk is lost");
      ensure(s->failures == 0, "the later reads do not fail");
    };
  });
}

TEST_CASE("Under every schedule a producer whose consumer leaves stops", "[model][stream]") {
  test::model::explore("the consumer leaves", 3, [](explorer& schedules) {
    auto s = std::make_shared<channel_model>(1);
    schedules.actor("producer", [s] {
      while (s->source.push(1)) {
      }
      s->source.finish(nullptr);
    });
    schedules.actor("consumer", [s] {
      s->next();
      s->source.abandon();
      ensure(!s->next() && s->failures == 1, "a stream that was cancelled fails once");
      ensure(!s->next() && s->failures == 1, "and then has ended");
    });
    return [s] { ensure(s->source.context.stop_requested(), "the engine is asked to stop"); };
  });
}

TEST_CASE("Under every schedule a producer whose thread is shut down stops, and the consumer is told", "[model][stream]") {
  test::model::explore("the worker is shut down", 2, [](explorer& schedules) {
    auto s = std::make_shared<channel_model>(1);
    schedules.actor("producer", [s] {
      while (s->source.push(1)) {
      }
      s->source.finish(nullptr);
    });
    schedules.actor("consumer", [s] {
      if (s->next() && s->next()) return;
      ensure(s->failures == 1, "the stream did not end by itself");
    });
    schedules.actor("owner", [s] { s->source.on_stop(); });
    return [] {};
  });
}

TEST_CASE(
    "Under every schedule a stream whose deadline passes brings a beginning of its chunks, and says so unless it had ended",
    "[model][stream]") {
  test::model::explore("a deadline", 2, [](explorer& schedules) {
    auto s = std::make_shared<channel_model>(1);
    auto pushed = std::make_shared<int>(0);
    schedules.actor("producer", [s, pushed] {
      while (*pushed < 2 && s->source.push(*pushed + 1))
        ++*pushed;
      s->source.finish(nullptr);
    });
    schedules.actor("consumer", [s] {
      while (s->next()) {
      }
      if (s->failures > 0) ensure(!s->next(), "after its failure a stream has ended");
    });
    schedules.actor("deadline", [s] { s->source.expire(); });
    return [s, pushed] {
      for (std::size_t i = 0; i < s->got.size(); ++i)
        ensure(s->got[i] == static_cast<int>(i) + 1, "chunks come in order");
      ensure(static_cast<int>(s->got.size()) == *pushed, "what was taken comes");
      ensure(s->failures <= 1, "it fails once");
      ensure(s->failures == 1 || *pushed == 2, "a stream without a failure is whole");
    };
  });
}
