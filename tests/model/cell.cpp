// The once-cell under every schedule.

#include "tests/model/loop.hpp"

#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

namespace {

namespace asio = boost::asio;
using test::model::await;
using test::model::ensure;
using test::model::explorer;
using cell = roster::detail::cell_state<int>;

/// A cell, its flights and its callers.
class cell_model {
 public:
  /// An initialiser that suspends twice and then fails or makes a value. A cancellation takes effect when it suspends again.
  class flight final : public roster::detail::flight<int> {
   public:
    flight(cell_model& model, bool fails) : model_(model), fails_(fails) {}
    asio::awaitable<int> start() override { return model_.run(fails_); }

   private:
    cell_model& model_;
    const bool fails_;
  };

  class node;

  /// The outcome of a call. It outlives the node, which is released on completion: its flight must not outlive the context.
  struct caller {
    bool done() const { return completions == 1; }
    bool got_value() const { return value; }

    std::shared_ptr<node> waiting;
    int completions = 0;
    bool value = false;
    bool aborted = false;
  };

  class node final : public roster::detail::cell_waiter<int> {
   public:
    node(cell_model& model, bool fails, caller& whose) : cell_waiter(std::make_shared<flight>(model, fails)), whose_(whose) {}

    void complete(std::shared_ptr<cell_waiter>, std::exception_ptr failure,
                  std::shared_ptr<const int> value) noexcept override {
      ensure(whose_.completions++ == 0, "a caller completes once");
      ensure(!failure == !!value, "a caller gets a value or an error");
      whose_.value = !!value;
      whose_.aborted = failure && is_abort(failure);
      whose_.waiting.reset();
    }

   private:
    static bool is_abort(const std::exception_ptr& failure) noexcept {
      try {
        std::rethrow_exception(failure);
      } catch (const boost::system::system_error& e) {
        return e.code() == asio::error::operation_aborted;
      } catch (...) {
        return false;  // its initialiser's own
      }
    }

    caller& whose_;
  };

  std::shared_ptr<caller> call(bool fails = false) {
    auto fresh = callers_.emplace_back(std::make_shared<caller>());
    fresh->waiting = std::make_shared<node>(*this, fails, *fresh);
    return fresh;
  }

  void join(const std::shared_ptr<caller>& one) { state->enqueue(one->waiting); }

  /// Does what a cancellation slot does.
  void cancel(const std::shared_ptr<caller>& one) {
    if (auto waiting = one->waiting) state->cancel(std::move(waiting));
  }

  /// Joins, and waits to the end.
  void use(const std::shared_ptr<caller>& one) {
    join(one);
    await([&] { return one->done(); });
  }

  /// At the end: everybody was told, and the cell has a value if somebody got one.
  void check_end() {
    bool somebody = false;
    for (const auto& one : callers_) {
      ensure(one->done(), "everybody is told");
      somebody = somebody || one->got_value();
    }
    ensure(running_ == 0, "no initialiser is left");
    ensure(!somebody || state->try_get(), "a cell keeps the value that it gave out");
    ensure(!state->try_get() || made_ == 1, "only one value is made");
  }

  int started() const { return started_; }

  std::optional<test::model::loop> context{std::in_place};
  std::shared_ptr<cell> state = roster::detail::make_context_bound<cell>(context->get_executor());

 private:
  struct in_flight {
    explicit in_flight(cell_model& model) : s(model) { ensure(s.running_++ == 0, "initialisers do not overlap"); }
    in_flight(const in_flight&) = delete;
    in_flight& operator=(const in_flight&) = delete;
    ~in_flight() { --s.running_; }
    cell_model& s;
  };

  asio::awaitable<int> run(bool fails) {
    ++started_;
    const in_flight guard(*this);
    co_await asio::post(asio::use_awaitable);
    co_await asio::post(asio::use_awaitable);
    if (fails) throw std::runtime_error("cause");
    co_return ++made_;
  }

  std::vector<std::shared_ptr<caller>> callers_;
  int started_ = 0;
  int running_ = 0;
  int made_ = 0;
};

std::shared_ptr<cell_model> make_model(explorer& schedules) {
  auto s = std::make_shared<cell_model>();
  schedules.daemon("strand", [&schedules, s] { s->context->run(schedules); });
  return s;
}

}  // namespace

TEST_CASE("Under every schedule all callers get the one value", "[model][cell]") {
  test::model::explore("three callers", 2, [](explorer& schedules) {
    auto s = make_model(schedules);
    std::vector<std::shared_ptr<cell_model::caller>> callers;
    for (const auto* name : {"first", "second", "third"}) {
      callers.push_back(s->call());
      schedules.actor(name, [s, one = callers.back()] { s->use(one); });
    }
    return [s, callers] {
      s->check_end();
      for (const auto& one : callers)
        ensure(one->got_value(), "nobody was cancelled");
      ensure(s->started() == 1, "one initialiser runs");
    };
  });
}

TEST_CASE("Under every schedule a flight goes on while somebody waits", "[model][cell]") {
  test::model::explore("one of two callers is cancelled", 4, [](explorer& schedules) {
    auto s = make_model(schedules);
    auto fickle = s->call();
    auto patient = s->call();
    auto joined = std::make_shared<bool>(false);
    auto shared_it = std::make_shared<bool>(false);
    schedules.actor("fickle", [s, fickle, joined, shared_it] {
      s->join(fickle);
      *shared_it = *joined;
      s->cancel(fickle);
      await([&] { return fickle->done(); });
    });
    schedules.actor("patient", [s, patient, joined] {
      s->join(patient);
      *joined = true;
      await([&] { return patient->done(); });
    });
    return [s, fickle, patient, shared_it] {
      s->check_end();
      ensure(fickle->got_value() || fickle->aborted, "a cancelled caller gets the value or operation_aborted");
      ensure(patient->got_value(), "nobody cancelled this caller");
      ensure(s->started() <= (*shared_it ? 1 : 2), "a flight that somebody waits for is not stopped");
    };
  });
}

TEST_CASE("Under every schedule a caller after the last has left gets a value", "[model][cell]") {
  test::model::explore("two callers leave, one comes", 2, [](explorer& schedules) {
    auto s = make_model(schedules);
    auto first = s->call();
    auto second = s->call();
    auto late = s->call();
    s->join(first);
    s->join(second);
    schedules.actor("first", [s, first] { s->cancel(first); });
    schedules.actor("second", [s, second] { s->cancel(second); });
    schedules.actor("late", [s, late] { s->use(late); });
    return [s, late] {
      s->check_end();
      ensure(late->got_value(), "nobody cancelled the late caller");
    };
  });
}

TEST_CASE("Under every schedule a failure reaches those who waited for it, and nobody later", "[model][cell]") {
  test::model::explore("an initialiser fails", test::model::unbounded, [](explorer& schedules) {
    auto s = make_model(schedules);
    auto failing = s->call(true);
    auto working = s->call();
    auto late = s->call();
    schedules.actor("failing", [s, failing] { s->use(failing); });
    schedules.actor("working", [s, working, late] {
      s->use(working);
      s->use(late);
    });
    return [s, failing, working, late] {
      s->check_end();
      ensure(!failing->aborted && !working->aborted, "nobody was cancelled");
      ensure(late->got_value(), "a cell does not keep a failure");
    };
  });
}

TEST_CASE("Under every schedule a cell that dies tells its callers", "[model][cell]") {
  test::model::explore("a cell is closed", test::model::unbounded, [](explorer& schedules) {
    auto s = make_model(schedules);
    auto first = s->call();
    auto second = s->call();
    s->join(first);
    s->join(second);
    schedules.actor("first", [s, first] { s->cancel(first); });
    schedules.actor("owner", [s] { s->state->abandon(); });
    return [s, first, second] {
      ensure(first->done() && second->done(), "everybody is told");
      ensure(second->got_value() || second->aborted, "a caller gets the value, or hears that the cell is gone");
    };
  });
}

TEST_CASE("At whatever moment its context dies, a cell tells its callers", "[model][cell]") {
  test::model::explore("a cell's context dies", test::model::unbounded, [](explorer& schedules) {
    auto s = make_model(schedules);
    auto first = s->call();
    auto second = s->call();
    schedules.actor("callers", [s, first, second] {
      s->join(first);
      s->join(second);
      s->cancel(first);
    });
    schedules.actor("end", [s] { s->context->stop(); });
    return [s, first, second] {
      s->context.reset();
      s->check_end();
      ensure(second->got_value() || second->aborted, "a caller gets the value, or hears that the context is gone");
    };
  });
}
