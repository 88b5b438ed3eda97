#include <roster/registry/catalog.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/models.hpp"
#include "tests/support/stress.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#include <algorithm>
#include <atomic>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

namespace asio = boost::asio;
using roster::errc;
using roster::image;
using roster::image_embedding;
using roster::image_event;
using roster::image_request;
using roster::text_to_image;
using test::checkpoint;
using test::encoder;
using test::engine_probe;
using test::maker;
using test::painter;
using test::spawn;

namespace {

using encoder_type = roster::lease<image_embedding>;
using painter_type = roster::lease<text_to_image>;

constexpr int calls = 300;
constexpr std::size_t in_flight = 6;  // more than the five that each model accepts

struct counts {
  int succeeded = 0, refused = 0, aborted = 0, thrown = 0, surprises = 0;
};

/// Calls one model over and over, a few at a time, and cancels some of them from its strand.
template <typename Model>
class caller : public std::enable_shared_from_this<caller<Model>> {
 public:
  caller(asio::thread_pool& threads, Model model, std::mt19937::result_type seed)
      : home_(asio::make_strand(threads)), model_(std::move(model)), random_(seed) {}

  std::future<void> start() {
    asio::post(home_, [self = this->shared_from_this()] { self->fill(); });
    return ended_.get_future();
  }

  counts tally;

 private:
  struct call {
    asio::cancellation_signal signal;
    bool done = false;
    std::optional<roster::stream<image_event>> drawing;
  };

  void fill() {
    for (; begun_ < calls && live_ < in_flight; ++begun_, ++live_)
      begin();
    if (live_ == 0) ended_.set_value();
  }

  void begin() {
    auto current = std::make_shared<call>();
    auto handler = [self = this->shared_from_this(), current](std::exception_ptr failure, auto) {
      self->end(*current, failure);
    };
    auto bound = asio::bind_executor(home_, asio::bind_cancellation_slot(current->signal.slot(), std::move(handler)));
    if constexpr (std::is_same_v<Model, encoder_type>) {
      model_->async_call(std::vector<image>(1, image(random_() % 10 + 1, 1)), roster::embed_options(), std::move(bound));
    } else {
      current->drawing.emplace(model_->generate(image_request("x").steps(static_cast<std::uint32_t>(random_() % 100))));
      current->drawing->async_next(std::move(bound));  // the stream is dropped with its first chunk
    }
    if (random_() % 3 == 0) cancel_later(current, static_cast<int>(random_() % 30));
  }

  void cancel_later(std::shared_ptr<call> current, int hops) {
    asio::post(home_, [self = this->shared_from_this(), current, hops] {
      if (hops > 0 && !current->done) return self->cancel_later(current, hops - 1);
      current->signal.emit(asio::cancellation_type::terminal);
    });
  }

  void end(call& current, const std::exception_ptr& failure) {
    if (std::exchange(current.done, true)) ++tally.surprises;
    current.drawing.reset();
    const auto code = test::code_of(failure);
    if (!failure)
      ++tally.succeeded;
    else if (code == errc::queue_full)
      ++tally.refused;
    else if (code == asio::error::operation_aborted)
      ++tally.aborted;
    else if (code == boost::system::errc::state_not_recoverable)  // what `code_of` makes of other exceptions
      ++tally.thrown;
    else
      ++tally.surprises;
    --live_;
    fill();
  }

  asio::strand<asio::thread_pool::executor_type> home_;
  Model model_;
  std::mt19937 random_;
  std::promise<void> ended_;
  int begun_ = 0;
  std::size_t live_ = 0;
};

}  // namespace

TEST_CASE("However calls end, each ends once, no engine is used twice at once, and all places are free again",
          "[stress][b12][b13][b14][b25][b47]") {
  test::stress([](std::uint32_t seed) {
    std::mt19937 random(seed);
    checkpoint busy;
    std::atomic<bool> quiet{false};
    engine_probe pooled, pinned;
    for (auto* probe : {&pooled, &pinned})
      probe->on_embed = [&](auto inputs, auto& outputs, auto& context) {
        if (quiet) busy.pass();
        for (std::size_t i = 0; i < 50 * inputs[0].width() && !context.stop_requested(); ++i)
          std::this_thread::yield();
        if (inputs[0].width() == 10) throw std::runtime_error("ten");
        outputs.resize(1, 1);
      };
    {
      asio::thread_pool threads(2);
      roster::blocking_pool pool(2);
      roster::catalog<image_embedding, text_to_image> models{threads.get_executor()};
      const auto wait = [&]<typename T>(asio::awaitable<T> operation) {
        return asio::co_spawn(threads, std::move(operation), asio::use_future).get();
      };
      wait(models.add<image_embedding>("pooled", roster::pooled(pool, maker<encoder>(pooled)).instances(2).queue_limit(3)));
      wait(models.add<image_embedding>("pinned", roster::pinned(maker<encoder>(pinned)).queue_limit(4)));
      wait(models.add<text_to_image>("pooled", roster::pooled(pool, maker<painter>(pooled)).instances(2).queue_limit(3)));
      wait(models.add<text_to_image>("pinned", roster::pinned(maker<painter>(pinned)).queue_limit(4)));

      for (const auto* key : {"pooled", "pinned"}) {
        auto encoders = std::make_shared<caller<encoder_type>>(threads, wait(models.get<image_embedding>(key)), random());
        auto painters = std::make_shared<caller<painter_type>>(threads, wait(models.get<text_to_image>(key)), random());
        auto first = encoders->start();
        auto second = painters->start();
        first.get();
        second.get();
        for (const auto& tally : {encoders->tally, painters->tally}) {
          CHECK(tally.surprises == 0);
          CHECK(tally.succeeded + tally.refused + tally.aborted + tally.thrown == calls);
        }
      }

      // A loop driven by hand: a call that is refused has ended after `drain`, one that is accepted waits at the checkpoint.
      quiet = true;
      asio::io_context loop;
      std::vector<test::task<roster::embedding>> accepted;
      for (const auto* key : {"pooled", "pinned"}) {
        const auto model = wait(models.get<image_embedding>(key));
        const auto call = [&] {
          auto begun = spawn(loop, model->embed(image(1, 1)));
          test::drain(loop);
          return begun;
        };
        for (int i = 0; i < 5; ++i) {
          auto begun = call();
          while (begun.done())  // a deaf engine still has the place
            begun = call();
          accepted.push_back(std::move(begun));
        }
        CHECK(call().code() == errc::queue_full);
      }
      busy.open();
      loop.restart();
      loop.run();  // to its end: the engines' threads outlive this loop, and hold on to it until then
      for (auto& each : accepted)
        CHECK(each.succeeded());
    }
    for (auto* probe : {&pooled, &pinned}) {
      CHECK(probe->destroyed() == probe->made());
      CHECK_FALSE(probe->overlapped());
    }
    CHECK(pinned.most_run_at_once() <= 2);
  });
}
