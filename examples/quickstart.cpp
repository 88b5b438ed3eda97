// Register a model, look it up, call it. The engine below is plain blocking code; the event loop never waits for it.

#include <roster/roster.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/this_coro.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace asio = boost::asio;

// [engine]
// Turns a picture into the share of each of its 8 brightness levels.
class histogram {
 public:
  std::size_t dimension() const { return 8; }

  void run(std::span<const roster::image> pictures, const roster::embed_options&, roster::embeddings& out,
           roster::run_context& context) {
    out.resize(pictures.size(), dimension());
    for (std::size_t row = 0; row < pictures.size(); ++row) {
      context.throw_if_stop_requested();
      const auto pixels = pictures[row].pixels();
      for (auto value : pixels)
        out[row][value / 32] += 1.0F / static_cast<float>(pixels.size());
    }
  }
};
static_assert(roster::engine_for<histogram, roster::image_embedding>);
// [/engine]

roster::image dusk() {
  roster::image sky(64, 64);
  for (std::size_t y = 0; y < sky.height(); ++y)
    for (std::size_t x = 0; x < sky.width(); ++x)
      sky.at(x, y)[2] = static_cast<std::uint8_t>(4 * y);
  return sky;
}

// [application]
asio::awaitable<void> application(roster::blocking_pool& pool) {
  roster::registry<roster::image_embedding> encoders{co_await asio::this_coro::executor};

  // Nothing is made yet: the engine is made on the pool, when it is first needed, once.
  co_await encoders.add("histogram", roster::pooled(pool, [] { return histogram(); }));

  auto encoder = co_await encoders.get("histogram");  // a lease: keeps the model while it is used
  auto vector = co_await encoder->embed(dusk());
  fmt::print("{} numbers: {:.2f}\n", vector.size(), fmt::join(vector, " "));
}
// [/application]

int main() {
  asio::io_context loop;
  roster::blocking_pool pool{2};
  asio::co_spawn(loop, application(pool), [](std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
  });
  loop.run();
}
