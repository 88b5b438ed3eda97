// A model that must live on one thread, and that yields its result step by step: `pinned` gives it a thread, started when it is
// first needed, and the caller reads a stream. The engine only looks like diffusion: each step moves noise towards a picture.

#include <roster/roster.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/this_coro.hpp>

#include <fmt/format.h>

#include <cmath>
#include <random>
#include <thread>

namespace asio = boost::asio;

class disc_painter {
 public:
  explicit disc_painter(const roster::device& where) : thread_(std::this_thread::get_id()) {
    fmt::print("painter made on {}\n", where.name());
  }

  void run(const roster::image_request& request, roster::sink<roster::image_event>& out, roster::run_context& context) {
    if (thread_ != std::this_thread::get_id()) throw std::logic_error("a foreign thread");
    const auto width = request.width().value_or(32), height = request.height().value_or(16);
    if (width > 512 || height > 512) throw roster::error(roster::errc::invalid_input, "size: at most 512 x 512");
    const auto steps = request.steps().value_or(8);
    std::mt19937_64 random(request.seed().value_or(std::random_device()()));
    roster::image canvas(width, height);
    for (auto& value : canvas.pixels())
      value = static_cast<std::uint8_t>(random());
    for (std::uint32_t step = 1; step <= steps; ++step) {
      refine(canvas, 1.0 / (steps - step + 1));
      context.report_progress(step, steps);
      if (!out.push(roster::image_step(step, steps))) return;  // nobody is looking any more
    }
    out.push(std::move(canvas));
  }

 private:
  static void refine(roster::image& canvas, double amount) {
    const auto middle_x = static_cast<double>(canvas.width()) / 2, middle_y = static_cast<double>(canvas.height()) / 2;
    for (std::size_t y = 0; y < canvas.height(); ++y)
      for (std::size_t x = 0; x < canvas.width(); ++x) {
        const auto distance =
            std::hypot((static_cast<double>(x) + 0.5) / middle_x - 1, (static_cast<double>(y) + 0.5) / middle_y - 1);
        const double target = distance < 0.8 ? 255 : 0;
        for (auto& value : canvas.at(x, y))
          value = static_cast<std::uint8_t>(value + (target - value) * amount);
      }
  }

  std::thread::id thread_;
};

void show(const roster::image& picture) {
  for (std::size_t y = 0; y < picture.height(); ++y) {
    for (std::size_t x = 0; x < picture.width(); ++x)
      fmt::print("{}", " .:-=+*#"[picture.at(x, y)[0] / 32]);
    fmt::print("\n");
  }
}

asio::awaitable<void> application() {
  roster::registry<roster::text_to_image> painters{co_await asio::this_coro::executor};
  auto make_painter = [](const roster::device& where) { return disc_painter(where); };
  co_await painters.add("disc", roster::pinned(make_painter, "cpu:0"));

  auto painter = co_await painters.get("disc");
  roster::image_request request{"a disc"};
  request.steps(5).seed(7);
  auto drawing = painter->generate(request);
  while (auto event = co_await drawing.next()) {
    if (auto* step = std::get_if<roster::image_step>(&*event))
      fmt::print("step {} of {}\n", step->step, step->total);
    else
      show(std::get<roster::image>(*event));
  }

  // A stream that is dropped stops its engine at the next step.
  auto unwanted = painter->generate(request.steps(1'000'000));
  (void)co_await unwanted.next();
  unwanted.cancel();

  // Errors arrive where the stream is read.
  auto too_big = painter->generate(request.size(10'000, 10'000));
  try {
    (void)co_await too_big.next();
  } catch (const roster::error& failure) {
    fmt::print("{}\n", failure.what());
  }
}

int main() {
  asio::io_context loop;
  asio::co_spawn(loop, application(), [](std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
  });
  loop.run();
}
