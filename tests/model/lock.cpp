// The reader/writer lock under every schedule.

#include "tests/model/loop.hpp"

#include <memory>
#include <optional>
#include <vector>

namespace {

using roster::detail::lock_mode;
using roster::detail::lock_state;
using test::model::await;
using test::model::ensure;
using test::model::explorer;
using test::model::point;

constexpr auto shared = lock_mode::shared;
constexpr auto exclusive = lock_mode::exclusive;

/// A lock, who holds it, and who waits for it.
class lock_model {
 public:
  class request final : public roster::detail::lock_waiter {
   public:
    request(lock_model& model, lock_mode wanted, bool competing) : lock_waiter(wanted, competing), model_(model) {}

    void complete(std::shared_ptr<lock_waiter>, roster::error_code code, std::shared_ptr<lock_state> owner) noexcept override {
      ensure(completions_++ == 0, "a request completes once");
      ensure(!code == !!owner, "a request gets the lock or an error");
      granted_ = !code;
      model_.answered(*this);
    }

    void wake(std::shared_ptr<lock_waiter> self, std::shared_ptr<lock_state> owner) noexcept override {
      ensure(!done(), "only who waits is woken");
      on_the_way_ = true;
      roster::detail::lock_awakening<request> arrival(std::move(self), std::move(owner));
      model_.home->get_executor().execute([comes = std::move(arrival), model = &model_, this]() mutable {
        comes();
        on_the_way_ = false;
        ++model->arrivals;
      });
    }

    void arrive(std::shared_ptr<lock_waiter> self, roster::error_code code, std::shared_ptr<lock_state> owner) {
      complete(std::move(self), code, std::move(owner));
    }

    void drop(std::shared_ptr<lock_waiter>) noexcept {}

    bool done() const { return completions_ > 0; }
    bool granted() const { return granted_; }
    bool on_the_way() const { return on_the_way_; }

    int began = 0;  // when it started to queue, and when it had
    int ended = 0;
    bool leaving = false;

   private:
    lock_model& model_;
    int completions_ = 0;
    bool granted_ = false;
    bool on_the_way_ = false;
  };

  /// A request that competes for the lock, or is handed it.
  std::shared_ptr<request> ask(lock_mode mode, bool competing = true) {
    return requests_.emplace_back(std::make_shared<request>(*this, mode, competing));
  }

  void enqueue(const std::shared_ptr<request>& one) {
    one->began = ++clock_;
    lock->enqueue(one);
    one->ended = ++clock_;
  }

  void cancel(const std::shared_ptr<request>& one) {
    one->leaving = true;
    lock->cancel(one);
  }

  bool try_lock(lock_mode mode) {
    const bool got = lock->try_lock(mode);
    if (got) entered(mode);
    return got;
  }

  /// Waits for the lock. Whether it was granted.
  bool acquire(const std::shared_ptr<request>& one) {
    if (try_lock(one->mode)) return true;
    enqueue(one);
    await([&] { return one->done(); });
    return one->granted();
  }
  bool acquire(lock_mode mode) { return acquire(ask(mode)); }

  void release(lock_mode mode) {
    mode == exclusive ? --writers_ : --readers_;
    lock->unlock(mode);
  }

  void downgrade() {
    --writers_;
    ++readers_;
    lock->downgrade();
  }

  /// Acquires, does something, releases.
  void use(lock_mode mode) {
    ensure(acquire(mode), "nobody was cancelled");
    point();
    release(mode);
  }

  /// Releases a request's hold, if it gets one.
  void finish(const std::shared_ptr<request>& one) {
    await([&] { return one->done(); });
    if (one->granted()) release(one->mode);
  }

  /// At the end: everybody was told, and the word says that the lock is free and nobody waits.
  void check_end() {
    for (const auto& one : requests_)
      ensure(one->done() || !one->began, "everybody is told");
    ensure(lock->try_lock(exclusive), "nobody holds the lock, and nobody waits");
    lock->unlock(exclusive);
  }

  std::optional<test::model::loop> home{std::in_place};     // where waiters are called
  std::optional<test::model::loop> context{std::in_place};  // the lock's own
  int arrivals = 0;                                         // of waiters that were woken
  std::shared_ptr<lock_state> lock = roster::detail::make_context_bound<lock_state>(context->get_executor());

 private:
  void entered(lock_mode mode) {
    ensure(writers_ == 0 && (mode == shared || readers_ == 0), "a writer is alone");
    mode == exclusive ? ++writers_ : ++readers_;
  }

  void answered(const request& one) {
    if (!one.granted()) return;
    for (const auto& other : requests_)
      ensure(!other->ended || other->done() || other->on_the_way() || other->leaving || other->ended > one.began,
             "who came first is granted first");
    entered(one.mode);
  }

  int readers_ = 0;
  int writers_ = 0;
  int clock_ = 0;
  std::vector<std::shared_ptr<request>> requests_;
};

auto make_model(explorer& schedules) {
  auto made = std::make_shared<lock_model>();
  schedules.daemon("home", [made, &schedules] { made->home->run(schedules); });
  return made;
}

auto ends_well(const std::shared_ptr<lock_model>& s) {
  return [s] { s->check_end(); };
}

}  // namespace

TEST_CASE("Under every schedule two writers and a reader exclude each other, and all get their turn", "[model][lock]") {
  test::model::explore("two writers and a reader", 2, [](explorer& schedules) {
    auto s = make_model(schedules);
    schedules.actor("writer", [s] { s->use(exclusive); });
    schedules.actor("other writer", [s] { s->use(exclusive); });
    schedules.actor("reader", [s] { s->use(shared); });
    return ends_well(s);
  });
}

TEST_CASE("Under every schedule readers, one of whom comes back, and a writer get their turns", "[model][lock]") {
  test::model::explore("two readers, one twice, and a writer", 2, [](explorer& schedules) {
    auto s = make_model(schedules);
    schedules.actor("reader", [s] {
      s->use(shared);
      s->use(shared);
    });
    schedules.actor("other reader", [s] { s->use(shared); });
    schedules.actor("writer", [s] { s->use(exclusive); });
    return ends_well(s);
  });
}

TEST_CASE("Under every schedule a writer who leaves lets those behind it in", "[model][lock]") {
  test::model::explore("a writer is cancelled between readers", 2, [](explorer& schedules) {
    auto s = make_model(schedules);
    s->try_lock(shared);
    auto writer = s->ask(exclusive);
    auto reader = s->ask(shared);
    schedules.actor("writer", [s, writer] {
      s->enqueue(writer);
      s->finish(writer);
    });
    schedules.actor("canceller", [s, writer] {
      await([&] { return writer->ended > 0; });
      s->cancel(writer);
    });
    schedules.actor("reader", [s, reader] {
      ensure(s->acquire(shared), "nobody cancels the reader");
      s->release(shared);
      s->release(shared);  // the first one's, who would not have gone sooner
    });
    return ends_well(s);
  });
}

TEST_CASE("Under every schedule a cancelled request gets the lock or an error", "[model][lock]") {
  test::model::explore("a release and a cancellation race", 3, [](explorer& schedules) {
    auto s = make_model(schedules);
    s->try_lock(exclusive);
    auto writer = s->ask(exclusive);
    schedules.actor("holder", [s] { s->release(exclusive); });
    schedules.actor("writer", [s, writer] {
      s->enqueue(writer);
      s->finish(writer);
    });
    schedules.actor("canceller", [s, writer] { s->cancel(writer); });
    return ends_well(s);
  });
}

TEST_CASE("Under every schedule nobody passes a head that was found ungrantable", "[model][lock]") {
  test::model::explore("a reader barges", 4, [](explorer& schedules) {
    auto s = make_model(schedules);
    s->try_lock(shared);
    auto writer = s->ask(exclusive);
    auto sent = std::make_shared<bool>(false);
    schedules.actor("writer", [s, writer, sent] {
      s->enqueue(writer);
      *sent = true;
      s->finish(writer);
    });
    schedules.actor("barger", [s, sent] {
      for (int i = 0; i < 2; ++i) {
        const bool due = *sent;  // stays so: the first hold is released below
        const bool got = s->try_lock(shared);
        ensure(!due || !got, "the head has been looked at, so newcomers queue");
        if (got) s->release(shared);
      }
      s->release(shared);
    });
    return ends_well(s);
  });
}

TEST_CASE("Under every schedule nobody passes a head that came and found the lock taken", "[model][lock]") {
  test::model::explore("a writer barges", 3, [](explorer& schedules) {
    auto s = make_model(schedules);
    s->try_lock(exclusive);
    auto writer = s->ask(exclusive);
    s->enqueue(writer);
    schedules.actor("holder", [s] { s->release(exclusive); });
    schedules.actor("writer", [s, writer] { s->finish(writer); });
    schedules.actor("barger", [s, writer] {
      for (int i = 0; i < 2; ++i) {
        const bool due = s->arrivals > 0;
        const bool got = s->try_lock(exclusive);
        ensure(!due || !got || writer->done(), "the head has come, so newcomers queue");
        if (got) s->release(exclusive);
      }
    });
    return ends_well(s);
  });
}

TEST_CASE("A waiter that was passed is released while the queue still has it, not after its handler may have ended",
          "[model][lock]") {
  lock_model s;
  s.try_lock(exclusive);
  const auto writer = s.ask(exclusive);
  s.enqueue(writer);
  s.release(exclusive);
  REQUIRE(s.try_lock(exclusive));
  std::shared_ptr<roster::detail::lock_waiter> arriving = writer;
  CHECK_FALSE(s.lock->try_after_wake(arriving));
  CHECK_FALSE(arriving);
  s.home.reset();
  CHECK(writer->done());
}

TEST_CASE("Under every schedule a waiter whose executor dies lets those behind it in", "[model][lock]") {
  test::model::explore("a waiter's context dies", 2, [](explorer& schedules) {
    auto s = make_model(schedules);
    s->try_lock(exclusive);
    auto writer = s->ask(exclusive);
    s->enqueue(writer);
    schedules.actor("holder", [s] { s->release(exclusive); });
    schedules.actor("barger", [s] {
      if (s->try_lock(exclusive)) s->release(exclusive);
    });
    schedules.actor("canceller", [s, writer] { s->cancel(writer); });
    schedules.actor("end", [s] { s->home->stop(); });
    return [s, writer] {
      s->home.reset();
      if (writer->granted()) s->release(exclusive);
      ensure(s->lock->try_lock(exclusive), "nobody holds the lock, and nobody waits");
    };
  });
}

TEST_CASE("Under every schedule nobody passes the head after a release while another tells", "[model][lock]") {
  test::model::explore("writers barge while somebody tells", 2, [](explorer& schedules) {
    auto s = std::make_shared<lock_model>();  // nobody is woken
    s->try_lock(exclusive);
    auto first = s->ask(exclusive, false);
    auto second = s->ask(exclusive, false);
    s->enqueue(first);
    s->enqueue(second);
    auto returned = std::make_shared<bool>(false);
    schedules.actor("holder", [s] { s->release(exclusive); });
    schedules.actor("first", [s, first, returned] {
      s->finish(first);
      *returned = true;
    });
    schedules.actor("second", [s, second] { s->finish(second); });
    schedules.actor("barger", [s, second, returned] {
      for (int i = 0; i < 2; ++i) {
        const bool due = *returned;
        const bool got = s->try_lock(exclusive);
        ensure(!due || !got || second->done(), "the release has returned, so newcomers queue");
        if (got) s->release(exclusive);
      }
    });
    return ends_well(s);
  });
}

TEST_CASE("Under every schedule a downgrade lets readers in", "[model][lock]") {
  test::model::explore("a downgrade", 3, [](explorer& schedules) {
    auto s = make_model(schedules);
    s->try_lock(exclusive);
    auto reader = s->ask(shared);
    schedules.actor("holder", [s, reader] {
      s->downgrade();
      await([&] { return reader->done(); });
      s->release(shared);
    });
    schedules.actor("reader", [s, reader] {
      s->enqueue(reader);
      s->finish(reader);
      s->use(exclusive);
    });
    return ends_well(s);
  });
}

TEST_CASE("Under every schedule a lock that dies tells its waiters, and takes nobody's hold", "[model][lock]") {
  test::model::explore("a lock is closed", 3, [](explorer& schedules) {
    auto s = make_model(schedules);
    s->try_lock(exclusive);
    auto first = s->ask(exclusive);
    auto second = s->ask(shared);
    s->enqueue(first);
    s->enqueue(second);
    schedules.actor("holder", [s] { s->release(exclusive); });
    schedules.actor("owner", [s] { s->lock->close(); });
    schedules.actor("waiters", [s, first, second] {
      s->finish(first);
      s->finish(second);
    });
    return ends_well(s);
  });
}

TEST_CASE("At whatever moment its context dies, a lock tells its waiters", "[model][lock]") {
  test::model::explore("a lock's context dies", 3, [](explorer& schedules) {
    auto s = make_model(schedules);
    s->try_lock(exclusive);
    auto first = s->ask(exclusive);
    auto second = s->ask(shared);
    s->enqueue(first);
    schedules.actor("reader", [s, second] {
      s->enqueue(second);
      s->cancel(second);
    });
    schedules.actor("holder", [s] { s->release(exclusive); });
    schedules.actor("end", [s] { s->context.reset(); });
    return [s, first, second] {
      ensure(first->done() && second->done(), "everybody is told when the context dies");
      if (first->granted()) s->release(exclusive);
      if (second->granted()) s->release(shared);
      ensure(s->lock->try_lock(exclusive), "nobody holds the lock");
    };
  });
}
