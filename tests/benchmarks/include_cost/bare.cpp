// What the quickstart does, by hand: Asio, a map and fmt, no library of models. One thread only may use the map, two lookups at
// once load a model twice, nothing can be cancelled, and no queue is bounded; that is what roster is for.

#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/unordered/unordered_flat_map.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace asio = boost::asio;

class histogram {
 public:
  std::vector<float> run(std::span<const std::uint8_t> pixels) {
    std::vector<float> out(8);
    for (auto value : pixels)
      out[value / 32] += 1.0F / static_cast<float>(pixels.size());
    return out;
  }
};

class models {
 public:
  models(asio::any_io_executor executor, asio::thread_pool& pool) : strand_(asio::make_strand(executor)), pool_(pool) {}

  asio::awaitable<void> add(std::string key, std::function<histogram()> make) {
    co_await asio::post(strand_, asio::use_awaitable);
    entries_.try_emplace(std::move(key), entry{std::move(make), nullptr});
  }

  asio::awaitable<std::shared_ptr<histogram>> get(std::string key) {
    co_await asio::post(strand_, asio::use_awaitable);
    const auto found = entries_.find(key);
    if (found == entries_.end()) throw std::runtime_error(fmt::format("no model \"{}\"", key));
    if (!found->second.model)
      found->second.model = co_await asio::co_spawn(pool_, load(found->second.make), asio::use_awaitable);
    co_return found->second.model;
  }

  asio::awaitable<std::vector<float>> embed(std::shared_ptr<histogram> model, std::vector<std::uint8_t> pixels) {
    co_return co_await asio::co_spawn(pool_, run(std::move(model), std::move(pixels)), asio::use_awaitable);
  }

 private:
  struct entry {
    std::function<histogram()> make;
    std::shared_ptr<histogram> model;
  };

  static asio::awaitable<std::shared_ptr<histogram>> load(std::function<histogram()> make) {
    co_return std::make_shared<histogram>(make());
  }

  static asio::awaitable<std::vector<float>> run(std::shared_ptr<histogram> model, std::vector<std::uint8_t> pixels) {
    co_return model->run(pixels);
  }

  asio::strand<asio::any_io_executor> strand_;
  asio::thread_pool& pool_;
  boost::unordered_flat_map<std::string, entry> entries_;
};

asio::awaitable<void> application(asio::thread_pool& pool) {
  models encoders(co_await asio::this_coro::executor, pool);
  co_await encoders.add("histogram", [] { return histogram(); });
  auto encoder = co_await encoders.get("histogram");
  std::vector<std::uint8_t> dusk(64 * 64 * 3);
  for (std::size_t i = 0; i < dusk.size(); ++i)
    dusk[i] = static_cast<std::uint8_t>(i / 48);
  auto vector = co_await encoders.embed(encoder, dusk);
  fmt::print("{} numbers: {:.2f}\n", vector.size(), fmt::join(vector, " "));
  try {
    (void)co_await encoders.get("resnet");
  } catch (const std::exception& failure) {
    fmt::print("{}\n", failure.what());
  }
}

int main() {
  asio::io_context loop;
  asio::thread_pool pool{2};
  asio::co_spawn(loop, application(pool), [](std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
  });
  loop.run();
}
