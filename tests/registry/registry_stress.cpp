#include <roster/registry/catalog.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"
#include "tests/support/stress.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

namespace asio = boost::asio;
using roster::errc;
using roster::image;
using roster::image_embedding;
using roster::image_event;
using roster::image_request;
using roster::load_context;
using roster::model_info;
using roster::text_to_image;
using test::encoder;
using test::engine_probe;
using test::error_code;
using test::make_model;
using test::painter;
using loading = asio::awaitable<std::shared_ptr<image_embedding::model>>;

namespace {

constexpr int clients = 6;
constexpr int rounds = 150;
constexpr int blows = 120;

/// Everything that random clients do to a catalog, which comes and goes, on loops that stop and go on; and what they may be
/// told.
class storm {
 public:
  explicit storm(std::uint32_t seed) : random_(seed) {
    for (auto* probe : {&pooled_, &pinned_}) {
      probe->on_make = [probe] {
        if (probe->attempts() % 7 == 3) throw std::runtime_error("made to fail");
      };
      probe->on_embed = [](auto inputs, auto& outputs, auto&) {
        if (inputs[0].width() == 13) throw 13;
        outputs.resize(inputs.size(), 1);
        outputs[0][0] = static_cast<float>(inputs[0].width());
      };
    }
  }

  /// Runs all clients to their end, takes everything down, and checks what is left.
  void run() {
    for (int i = 0; i < clients; ++i)
      crew_->spawn(live(*this, static_cast<std::uint32_t>(random_())), [this](const std::exception_ptr& failure) {
        if (failure) ++surprises_;
      });
    for (int i = 0; i < blows; ++i) {
      if (random_() % 2) crew_->stop_or_resume();
      if (random_() % 16 == 0) catalog_.renew(crew_->executor());
      std::this_thread::sleep_for(std::chrono::microseconds(random_() % 2000));
    }
    crew_->join();
    REQUIRE(surprises_ == 0);
    REQUIRE(started_ == succeeded_ + failed_);
    REQUIRE(pool_->queued() + pool_->waiting() == 0);

    catalog_.destroy();
    pool_.reset();
    crew_.reset();  // joins the threads of pinned engines
    for (const auto* probe : {&pooled_, &pinned_}) {
      REQUIRE(probe->destroyed() == probe->made());
      REQUIRE_FALSE(probe->overlapped());
    }
    for (std::size_t i = 0; i < pinned_.made(); ++i) {
      const auto life = pinned_.life(i);
      REQUIRE(life.destroyed_on == life.made_on);
      REQUIRE(std::ranges::all_of(life.ran_on, [&](auto each) { return each == life.made_on; }));
    }
  }

 private:
  using models = roster::catalog<image_embedding, text_to_image>;

  struct client {
    client(asio::any_io_executor client_executor, std::uint32_t seed) : executor(std::move(client_executor)), random(seed) {}
    int below(int n) { return static_cast<int>(random() % static_cast<std::uint32_t>(n)); }
    asio::any_io_executor executor;
    std::mt19937 random;
  };

  /// What may be said to somebody who uses a catalog that others change all the time.
  static bool expected(const error_code& code, bool cancelled) {
    return code == errc::not_found || code == errc::already_exists || code == errc::load_failed || code == errc::queue_full ||
           (code == asio::error::operation_aborted && cancelled) ||
           code == boost::system::errc::state_not_recoverable;  // the last: `throw 13`
  }

  /// One operation, cancelled or not, that ends exactly once.
  template <typename T>
  static asio::awaitable<std::optional<T>> attempt(storm& all, client& self, asio::awaitable<T> operation) {
    struct outcome {
      asio::cancellation_signal signal;
      bool cancelled = false;
      int completions = 0;
      std::optional<T> value;
      error_code code;
    };
    auto result = std::make_shared<outcome>();
    ++all.started_;
    auto handler = [result](std::exception_ptr failure, T value) {
      ++result->completions;
      result->code = test::code_of(failure);
      if (!failure) result->value.emplace(std::move(value));
    };
    asio::co_spawn(self.executor, std::move(operation),
                   asio::bind_executor(self.executor, asio::bind_cancellation_slot(result->signal.slot(), handler)));
    for (int patience = self.below(3) == 0 ? self.below(20) : -1; result->completions == 0; --patience) {
      if (patience == 0) {
        result->cancelled = true;
        result->signal.emit(asio::cancellation_type::terminal);
      }
      co_await asio::post(self.executor, asio::use_awaitable);
    }
    if (result->completions != 1 || (result->code && !expected(result->code, result->cancelled))) ++all.surprises_;
    ++(result->value ? all.succeeded_ : all.failed_);
    co_return std::move(result->value);
  }

  static asio::awaitable<bool> true_once(asio::awaitable<void> operation) {
    co_await std::move(operation);
    co_return true;
  }

  static asio::awaitable<void> live(storm& all, std::uint32_t seed) {
    client self(co_await asio::this_coro::executor, seed);
    for (int i = 0; i < rounds; ++i) {
      const auto key = std::to_string(self.below(4));
      switch (self.below(7)) {
        case 0:
        case 1:
          co_await attempt(all, self, true_once(all.change(self, key, self.below(2) == 0)));
          break;
        case 2:
          co_await attempt(all, self, all.remove(key));
          break;
        case 3:
          co_await look(all, self, key);
          break;
        case 4:
          co_await draw(all, self, key);
          break;
        default:
          co_await embed(all, self, key);
      }
    }
  }

  /// Loads its neighbour first: cycles happen.
  auto nested(const std::string& key) {
    return [this, next = (key[0] - '0' + 1) % 4](load_context& context) -> loading {
      auto getting = catalog_.call([&](models& all) { return context.get(all.of<image_embedding>(), std::to_string(next)); });
      auto other = co_await std::move(getting);
      co_return make_model(2);
    };
  }

  // Not coroutines: by the time their results are awaited the catalog may be gone.
  asio::awaitable<void> change(client& self, const std::string& key, bool replace) {
    return catalog_.call([&](models& all) {
      auto& encoders = all.of<image_embedding>();
      const auto put = [&](const auto&... args) {
        return replace ? encoders.replace(key, args...) : encoders.add(key, args...);
      };
      switch (self.below(5)) {
        case 0:
          return put(roster::pooled(*pool_, test::maker<encoder>(pooled_)).instances(2).queue_limit(2));
        case 1:
          return put(roster::pinned(test::device_maker<encoder>(pinned_)).queue_limit(1));
        case 2:
          return put(make_model(1));
        case 3:
          if (replace) return all.of<text_to_image>().replace(key, roster::pinned(test::maker<painter>(pinned_)));
          return all.add<text_to_image>(key, roster::pooled(*pool_, test::maker<painter>(pooled_)).queue_limit(1));
        default:
          return put(model_info("composed", key), nested(key));
      }
    });
  }
  asio::awaitable<bool> remove(const std::string& key) {
    return catalog_.call([&](models& all) { return all.of<image_embedding>().remove(key); });
  }
  auto list() {
    return catalog_.call([](models& all) { return all.of<image_embedding>().list(); });
  }
  template <typename Capability>
  auto get(const std::string& key) {
    return catalog_.call([&](models& all) { return all.get<Capability>(key); });
  }

  static asio::awaitable<void> look(storm& all, client& self, std::string key) {
    auto rows = co_await attempt(all, self, all.list());
    if (rows)
      for (std::size_t i = 1; i < rows->size(); ++i)
        if ((*rows)[i - 1].key >= (*rows)[i].key) ++all.surprises_;
    const auto code = all.catalog_.call([&](models& now) { return now.try_get<image_embedding>(key).error(); });
    if (code && code != errc::would_block && code != errc::not_found && code != errc::not_loaded) ++all.surprises_;
  }

  static asio::awaitable<void> embed(storm& all, client& self, std::string key) {
    auto model = co_await attempt(all, self, all.get<image_embedding>(key));
    if (!model) co_return;
    auto call = (*model)->embed(image(self.below(20) == 0 ? 13 : 5, 1));
    model.reset();
    co_await attempt(all, self, std::move(call));
  }

  static asio::awaitable<void> draw(storm& all, client& self, std::string key) {
    auto model = co_await attempt(all, self, all.get<text_to_image>(key));
    if (!model) co_return;
    auto drawing = (*model)->generate(image_request("x").steps(static_cast<std::uint32_t>(self.below(100))));
    model.reset();
    for (int left = self.below(120); left > 0; --left) {
      auto event = co_await attempt(all, self, drawing.next());
      if (!event || !*event) break;
    }
  }

  std::atomic<int> surprises_{0}, started_{0}, succeeded_{0}, failed_{0};
  std::mt19937 random_;
  engine_probe pooled_, pinned_;
  std::optional<test::looped_coroutines> crew_{std::in_place, random_};
  std::optional<roster::blocking_pool> pool_{std::in_place, 2, 4};
  test::destroyable<models> catalog_{crew_->executor()};
};

}  // namespace

TEST_CASE("Whatever clients do to a catalog that comes and goes, each operation ends one way and each engine where it began",
          "[stress][b14][b28][b31]") {
  test::stress([](std::uint32_t seed) {
    storm all(seed);
    all.run();
  });
}
