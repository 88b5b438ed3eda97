// Looking up models that are there.

#include "measure.hpp"

#include <boost/unordered/unordered_flat_map.hpp>

#include <atomic>
#include <barrier>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <unordered_map>

namespace bench {
namespace {

struct nothing {
  static constexpr std::string_view name = "nothing";
  struct model {};
};

using registry = roster::registry<nothing>;
using model_ptr = std::shared_ptr<nothing::model>;

asio::awaitable<void> fill(registry& models, const std::vector<std::string>& keys) {
  for (const auto& key : keys)
    co_await models.add(key, std::make_shared<nothing::model>());
}

/// What `find(key)` takes, for keys in random order.
template <typename Find>
double time_each(const std::vector<std::string_view>& order, Find find) {
  slices watch(order.size());
  while (watch.next())
    for (const auto key : order) {
      const auto found = find(key);
      keep(found);
    }
  return watch.result();
}

/// What `co_await models.get(key)` takes.
template <typename Models>
asio::awaitable<double> time_each_get(Models& models, const std::vector<std::string_view>& order) {
  slices watch(order.size());
  while (watch.next())
    for (const auto key : order) {
      const auto found = co_await models.get(key);
      keep(found);
    }
  co_return watch.result();
}

asio::awaitable<double> get_in_loop(std::size_t entries) {
  const auto keys = make_keys(entries);
  const auto order = make_order(keys);
  registry models{co_await asio::this_coro::executor};
  co_await fill(models, keys);
  co_return co_await time_each_get(models, order);
}

double get(std::size_t entries) {
  return on_loop(get_in_loop(entries));
}

double try_get(std::size_t entries) {
  const auto keys = make_keys(entries);
  const auto order = make_order(keys);
  asio::io_context loop(1);
  registry models(loop);
  asio::co_spawn(loop, fill(models, keys), rethrow);
  loop.run();
  return time_each(order, [&](std::string_view key) { return models.try_get(key); });
}

/// Two loops, one lookup after the other on each, all at once.
asio::awaitable<void> get_with_another(registry& models, const std::vector<std::string_view>& order, std::barrier<>& together,
                                       double& result) {
  slices watch(order.size());
  for (;;) {
    together.arrive_and_wait();
    if (!watch.next()) break;
    for (const auto key : order) {
      const auto lease = co_await models.get(key);
      keep(lease);
    }
  }
  result = watch.result();
}

double get_on_two_threads(std::size_t entries) {
  const auto keys = make_keys(entries);
  const auto order = make_order(keys);
  asio::io_context loops[2]{asio::io_context(1), asio::io_context(1)};
  registry models(loops[0]);
  asio::co_spawn(loops[0], fill(models, keys), rethrow);
  loops[0].run();
  loops[0].restart();
  std::barrier together(2);
  double results[2]{};
  for (std::size_t i = 0; i < 2; ++i)
    asio::co_spawn(loops[i], get_with_another(models, order, together, results[i]), rethrow);
  std::thread other([&] { loops[1].run(); });
  loops[0].run();
  other.join();
  return (results[0] + results[1]) / 2;
}

/// What a careful engineer writes who may block.
class locked_map {
 public:
  explicit locked_map(const std::vector<std::string>& keys) {
    for (const auto& key : keys)
      models_.emplace(key, std::make_shared<nothing::model>());
  }

  model_ptr find(std::string_view key) const {
    std::shared_lock lock(mutex_);
    const auto found = models_.find(key);
    return found != models_.end() ? found->second : nullptr;
  }

 private:
  mutable std::shared_mutex mutex_;
  std::unordered_map<std::string, model_ptr, roster::detail::key_hash, std::equal_to<>> models_;
};

double shared_mutex(std::size_t entries) {
  const auto keys = make_keys(entries);
  const auto order = make_order(keys);
  const locked_map models(keys);
  return time_each(order, [&](std::string_view key) { return models.find(key); });
}

double shared_mutex_on_two_threads(std::size_t entries) {
  const auto keys = make_keys(entries);
  const auto order = make_order(keys);
  const locked_map models(keys);
  std::barrier together(2);
  double results[2]{};
  const auto look_up = [&](double& result) {
    slices watch(order.size());
    for (;;) {
      together.arrive_and_wait();
      if (!watch.next()) break;
      for (const auto key : order) {
        const auto found = models.find(key);
        keep(found);
      }
    }
    result = watch.result();
  };
  std::thread other([&] { look_up(results[1]); });
  look_up(results[0]);
  other.join();
  return (results[0] + results[1]) / 2;
}

using bare_models = boost::unordered_flat_map<std::string, model_ptr, roster::detail::key_hash, std::equal_to<>>;

bare_models make_bare(const std::vector<std::string>& keys) {
  bare_models models;
  for (const auto& key : keys)
    models.emplace(key, std::make_shared<nothing::model>());
  return models;
}

model_ptr find(const bare_models& models, std::string_view key) {
  const auto found = models.find(key);
  return found != models.end() ? found->second : nullptr;
}

/// What is left when nobody may change the map.
double bare_map(std::size_t entries) {
  const auto keys = make_keys(entries);
  const auto order = make_order(keys);
  const auto models = make_bare(keys);
  return time_each(order, [&](std::string_view key) { return find(models, key); });
}

/// The least that a lock could do which knows its readers by their number: count them in and out, and never look.
class counted_map {
 public:
  explicit counted_map(const std::vector<std::string>& keys) : models_(make_bare(keys)) {}

  model_ptr find(std::string_view key) {
    readers_.fetch_add(1, std::memory_order_acquire);
    auto found = bench::find(models_, key);
    readers_.fetch_sub(1, std::memory_order_release);
    return found;
  }

  asio::awaitable<model_ptr> get(std::string_view key) { return ready(find(key)); }

 private:
  static asio::awaitable<model_ptr> ready(model_ptr found) { co_return found; }

  bare_models models_;
  std::atomic<std::uint64_t> readers_{0};
};

double counted(std::size_t entries) {
  const auto keys = make_keys(entries);
  const auto order = make_order(keys);
  counted_map models(keys);
  return time_each(order, [&](std::string_view key) { return models.find(key); });
}

double counted_get(std::size_t entries) {
  const auto keys = make_keys(entries);
  const auto order = make_order(keys);
  counted_map models(keys);
  return on_loop(time_each_get(models, order));
}

const measured measurements[] = {
    {"get", get, 64},
    {"try_get", try_get, 64},
    {"get_on_two_threads", get_on_two_threads, 64},
    {"shared_mutex", shared_mutex, 64},
    {"shared_mutex_on_two_threads", shared_mutex_on_two_threads, 64},
    {"bare_map", bare_map, 64},
    {"counted", counted, 64},
    {"counted_get", counted_get, 64},
};

}  // namespace
}  // namespace bench
