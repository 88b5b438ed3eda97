// How the cost of a lookup grows with the number of registered models, next to that of a bare hash map whose values are copied
// as a lookup copies them. Random keys, alternating rounds, medians. Exits with 1 if the registry's cost grows more than 1.2
// times as much.

#include <roster/roster.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/this_coro.hpp>

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <random>

namespace asio = boost::asio;

struct nothing {
  static constexpr std::string_view name = "nothing";
  struct model {};
};

using bare_map =
    boost::unordered_flat_map<std::string, std::shared_ptr<nothing::model>, roster::detail::key_hash, std::equal_to<>>;

constexpr std::size_t lookups = 200'000;
constexpr int rounds = 9;

double nanoseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count() /
         static_cast<double>(lookups);
}

double median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

std::size_t allocated() {
  return mallinfo2().uordblks;
}

struct row {
  double registry_ns, bare_ns;
};

asio::awaitable<row> measure(std::size_t entries) {
  std::vector<std::string> keys;
  for (std::size_t i = 0; i < entries; ++i)
    keys.push_back(fmt::format("model-{:011}", i));  // 17 characters
  std::mt19937_64 random(1);
  std::vector<std::string_view> order;
  for (std::size_t i = 0; i < lookups; ++i)
    order.push_back(keys[random() % entries]);

  const auto before = allocated();
  bare_map bare;
  for (const auto& key : keys)
    bare.emplace(key, std::make_shared<nothing::model>());
  const auto between = allocated();
  roster::registry<nothing> models{co_await asio::this_coro::executor};
  for (const auto& key : keys)
    co_await models.add(key, std::make_shared<nothing::model>());
  const auto after = allocated();

  std::vector<double> ours, floor;
  std::size_t found = 0;
  for (int round = 0; round < rounds; ++round) {
    auto start = std::chrono::steady_clock::now();
    for (auto key : order) {
      const auto lease = co_await models.get(key);
      found += lease ? 1U : 0U;
    }
    ours.push_back(nanoseconds_since(start));
    start = std::chrono::steady_clock::now();
    for (auto key : order) {
      const auto copy = bare.find(key)->second;
      found += copy ? 1U : 0U;
    }
    floor.push_back(nanoseconds_since(start));
  }
  if (found != 2 * rounds * lookups) throw std::logic_error("a lookup found nothing");
  const row result{median(ours), median(floor)};
  fmt::print("{:>8} entries: get {:6.1f} ns, bare map {:6.1f} ns; bytes per entry {:4}, bare map {:4}\n", entries,
             result.registry_ns, result.bare_ns, (after - between) / entries, (between - before) / entries);
  co_return result;
}

asio::awaitable<void> application(bool& passed) {
  const auto small = co_await measure(64);
  co_await measure(8'000);
  const auto large = co_await measure(100'000);
  const auto ours = large.registry_ns / small.registry_ns, bare = large.bare_ns / small.bare_ns;
  fmt::print("growth from 64 to 100,000: get {:.2f}, bare map {:.2f}, ratio {:.2f} (bar: 1.2)\n", ours, bare, ours / bare);
  passed = ours <= 1.2 * bare;
}

int main() {
  bool passed = false;
  asio::io_context loop;
  asio::co_spawn(loop, application(passed), [](std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
  });
  loop.run();
  return passed ? 0 : 1;
}
