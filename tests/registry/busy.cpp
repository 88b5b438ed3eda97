// What a registry does while somebody else changes it.

#include <roster/registry/registry.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"

#include <boost/asio/use_future.hpp>

#include <atomic>
#include <future>
#include <string>
#include <thread>

namespace asio = boost::asio;
using roster::errc;
using roster::image_embedding;
using test::finish;
using test::make_model;
using test::run_until;
using test::spawn;
using registry = roster::registry<image_embedding>;

namespace {

/// Another thread changes the registry all the time, and holds its lock long each time: it hashes and copies a large key.
class fixture {
 public:
  fixture() : changing_(asio::co_spawn(home_.context(), change(), asio::use_future)) {}
  fixture(const fixture&) = delete;
  fixture& operator=(const fixture&) = delete;
  ~fixture() {
    enough_ = true;
    changing_.wait();
  }

 protected:
  /// Enough to have met what is looked for.
  bool patient() const { return changes_ < 2000; }

  asio::io_context loop_;
  test::loop_thread home_;
  registry models_{home_.context()};

 private:
  asio::awaitable<void> change() {
    const std::string key(1 << 20, 'k');
    for (; !enough_; ++changes_) {
      co_await models_.add(key, make_model(1));
      co_await models_.remove(key);
    }
  }

  std::atomic<bool> enough_{false};
  std::atomic<int> changes_{0};
  std::future<void> changing_;
};

asio::awaitable<std::thread::id> thread_after(asio::awaitable<void> operation) {
  co_await std::move(operation);
  co_return std::this_thread::get_id();
}

template <typename T>
asio::awaitable<void> ignoring(asio::awaitable<T> operation) {
  (void)co_await std::move(operation);
}

}  // namespace

TEST_CASE_METHOD(fixture, "While the registry is being changed try_get would block, and does not say that a model is not there",
                 "[b31]") {
  finish(loop_, models_.add("key", make_model(1)));
  roster::error_code code;
  while (!code && patient())
    code = models_.try_get("key").error();
  CHECK(code == errc::would_block);
}

TEST_CASE_METHOD(fixture, "A change that is cancelled while it waits for its turn is not made, or was made and says so",
                 "[b31]") {
  enum class what { add, replace, remove };
  const auto change = GENERATE(what::add, what::replace, what::remove);
  int aborted = 0;
  while (aborted < 5 && patient()) {
    if (change != what::add) finish(loop_, models_.add("key", make_model(1)));
    auto call = [&] {
      if (change == what::add) return spawn(loop_, models_.add("key", make_model(2)));
      if (change == what::replace) return spawn(loop_, models_.replace("key", make_model(2)));
      return spawn(loop_, ignoring(models_.remove("key")));
    }();
    test::drain(loop_);
    call.cancel();
    run_until(loop_, [&] { return call.done(); });
    REQUIRE((call.succeeded() || call.aborted()));
    aborted += call.aborted();

    const bool there = finish(loop_, models_.contains("key"));
    REQUIRE(there == (change == what::replace || call.succeeded() == (change == what::add)));
    if (there) {
      const auto model = finish(loop_, models_.get("key"));
      REQUIRE(model->info().name == (call.succeeded() ? "2" : "1"));
    }
    finish(loop_, models_.remove("key"));
  }
  CHECK(aborted == 5);
}

TEST_CASE_METHOD(fixture, "Whoever waits for a turn at the registry resumes where he runs", "[b31]") {
  finish(loop_, models_.add("there", make_model(1)));
  const auto start = [this](int operation) {
    switch (operation) {
      case 0:
        return models_.add("key", make_model(1));
      case 1:
        return models_.replace("there", make_model(2));
      case 2:
        return ignoring(models_.remove("key"));
      case 3:
        return ignoring(models_.contains("key"));
      case 4:
        return ignoring(models_.list());
      default:
        return models_.preload("there");
    }
  };
  const int operation = GENERATE(0, 1, 2, 3, 4, 5);
  int waited = 0;
  while (waited < 3 && patient()) {
    auto call = spawn(loop_, thread_after(start(operation)));
    test::drain(loop_);
    if (!call.done()) ++waited;
    run_until(loop_, [&] { return call.done(); });
    REQUIRE(call.succeeded());
    REQUIRE(call.value() == std::this_thread::get_id());
    if (operation == 0) finish(loop_, models_.remove("key"));
  }
  CHECK(waited == 3);
}
