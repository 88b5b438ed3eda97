#pragma once

#include <roster/detail/context_bound.hpp>
#include <roster/detail/separate_compilation.hpp>
#include <roster/registry/detail/load_graph.hpp>
#include <roster/registry/detail/registry_entry.hpp>
#include <roster/registry/registered_model.hpp>
#include <roster/sync/shared_mutex.hpp>

#include <boost/unordered/unordered_flat_map.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace detail {

struct key_hash : std::hash<std::string_view> {
  using is_transparent = void;
};

/// What a registry shares with the lookups under way. The registries of all capabilities use that of `void`: it is compiled
/// once, and each of them has only its face.
template <typename Model>
class registry_core {
 public:
  using model_ptr = std::shared_ptr<Model>;
  using entry_type = registry_entry<Model>;
  using entry_ptr = std::shared_ptr<entry_type>;
  using core_ptr = std::shared_ptr<registry_core>;

  registry_core(const model_traits& traits, const asio::any_io_executor& executor, std::shared_ptr<time_source> time);

  ~registry_core();

  /// The key, if it may be one.
  static std::string check(std::string_view key) {
    if (key.empty()) throw error(errc::invalid_argument, "a key cannot be empty");
    return std::string(key);
  }

  entry_ptr make_entry(model_ptr model) const;

  entry_ptr make_entry(std::string_view key, model_info info, typename entry_type::loader_type loader) const;

  /// Before the registry is used.
  void add_default(const std::string& key, entry_ptr fresh);

  struct found_model {
    model_ptr model;
    errc error = errc::would_block;  ///< why there is none
  };

  found_model try_get(std::string_view key) const {
    found_model found;
    (void)mutex_.try_run_shared([&] {
      const auto* entry = find(key);
      if (!entry)
        found.error = errc::not_found;
      else if (const auto* model = (*entry)->try_get())
        found.model = *model;
      else
        found.error = errc::not_loaded;
    });
    return found;
  }

  /// `asker` is the load that needs the model, if one does.
  static asio::awaitable<model_ptr> look_up(core_ptr self, std::string key, load_node* asker);

  static asio::awaitable<bool> contains(core_ptr self, std::string key);

  static asio::awaitable<void> insert(core_ptr self, std::string key, entry_ptr fresh);

  static asio::awaitable<void> exchange(core_ptr self, std::string key, entry_ptr fresh);

  static asio::awaitable<bool> erase(core_ptr self, std::string key);

  static asio::awaitable<std::vector<registered_model>> list(core_ptr self);

  const asio::any_io_executor& executor() const noexcept { return context_->executor(); }

  const std::shared_ptr<time_source>& time() const noexcept { return time_; }

 private:
  using entry_map = boost::unordered_flat_map<std::string, entry_ptr, key_hash, std::equal_to<>>;

  static error taken(std::string_view key) { return {errc::already_exists, '\'' + std::string(key) + '\''}; }
  static error unknown(std::string_view key) { return {errc::not_found, '\'' + std::string(key) + '\''}; }

  static asio::awaitable<entry_ptr> locate(core_ptr self, std::string key);

  /// Under a lock, shared at least.
  const entry_ptr* find(std::string_view key) const {
    if (auto found = entries_.find(key); found != entries_.end()) return &found->second;
    if (auto found = defaults_.find(key); found != defaults_.end()) return &found->second;
    return nullptr;
  }

  mutable async_shared_mutex mutex_;
  entry_map entries_;   // guarded by `mutex_`
  entry_map defaults_;  // never changes
  const std::shared_ptr<const context_bound> context_;
  const std::shared_ptr<time_source> time_;
  const model_traits& traits_;
};

#if ROSTER_DEFINITIONS_HERE

template <typename Model>
registry_core<Model>::registry_core(const model_traits& traits, const asio::any_io_executor& executor,
                                    std::shared_ptr<time_source> time)
    : mutex_(executor),
      context_(make_context_bound<context_bound>(executor)),
      time_(required(std::move(time))),
      traits_(traits) {}

template <typename Model>
registry_core<Model>::~registry_core() = default;

template <typename Model>
auto registry_core<Model>::make_entry(model_ptr model) const -> entry_ptr {
  if (!model) throw error(errc::invalid_argument, "a model cannot be null");
  return std::make_shared<entry_type>(traits_, std::move(model));
}

template <typename Model>
auto registry_core<Model>::make_entry(std::string_view key, model_info info, typename entry_type::loader_type loader) const
    -> entry_ptr {
  return std::make_shared<entry_type>(traits_, std::string(key), std::move(info), std::move(loader), context_, time_);
}

template <typename Model>
void registry_core<Model>::add_default(const std::string& key, entry_ptr fresh) {
  if (!defaults_.try_emplace(check(key), std::move(fresh)).second) throw taken(key);
}

template <typename Model>
auto registry_core<Model>::look_up(core_ptr self, std::string key, load_node* asker) -> asio::awaitable<model_ptr> {
  auto found = co_await locate(self, key);
  if (!found) throw unknown(key);
  std::optional<load_wait> wait;
  if (asker && found->node() && !found->try_get()) wait.emplace(*asker, *found->node());
  co_return co_await entry_type::load(found);
}

// What runs under the lock owns all that it touches, since it may run when the caller is gone, and returns what is to be
// destroyed after it: an entry, always, so that one kind of waiter is compiled.

template <typename Model>
asio::awaitable<bool> registry_core<Model>::contains(core_ptr self, std::string key) {
  const auto found = co_await locate(std::move(self), std::move(key));
  co_return found != nullptr;
}

template <typename Model>
asio::awaitable<void> registry_core<Model>::insert(core_ptr self, std::string key, entry_ptr fresh) {
  const auto insert = [self, key = std::move(key), fresh = std::move(fresh)]() -> entry_ptr {
    if (!self->entries_.try_emplace(key, fresh).second) throw taken(key);
    return nullptr;
  };
  (void)co_await self->mutex_.run(insert);
}

template <typename Model>
asio::awaitable<void> registry_core<Model>::exchange(core_ptr self, std::string key, entry_ptr fresh) {
  const auto check = [self, key]() -> entry_ptr {
    if (!self->entries_.contains(key)) throw unknown(key);  // now, rather than after a long load; asked again below
    return nullptr;
  };
  (void)co_await self->mutex_.run_shared(check);
  (void)co_await entry_type::load(fresh);
  const auto swap = [self, key = std::move(key), fresh = std::move(fresh)]() mutable {
    const auto found = self->entries_.find(key);
    if (found == self->entries_.end()) throw unknown(key);
    found->second.swap(fresh);
    return std::move(fresh);
  };
  (void)co_await self->mutex_.run(swap);
}

template <typename Model>
asio::awaitable<bool> registry_core<Model>::erase(core_ptr self, std::string key) {
  const auto erase = [self, key = std::move(key)] {
    entry_ptr old;
    if (const auto found = self->entries_.find(key); found != self->entries_.end()) {
      old.swap(found->second);
      self->entries_.erase(found);
    }
    return old;
  };
  const auto old = co_await self->mutex_.run(erase);
  co_return old != nullptr;
}

template <typename Model>
asio::awaitable<std::vector<registered_model>> registry_core<Model>::list(core_ptr self) {
  struct snapshot {
    std::vector<std::pair<std::string, entry_ptr>> all;
    std::size_t registered = 0;
  };
  const auto taken_now = std::make_shared<snapshot>();
  const auto take = [self, taken_now]() -> entry_ptr {
    taken_now->all.assign(self->entries_.begin(), self->entries_.end());
    taken_now->registered = taken_now->all.size();
    for (const auto& each : self->defaults_)
      if (!self->entries_.contains(each.first)) taken_now->all.push_back(each);
    return nullptr;
  };
  (void)co_await self->mutex_.run_shared(take);
  std::vector<registered_model> rows;
  for (const auto& [key, model] : taken_now->all) {
    const bool builtin = rows.size() >= taken_now->registered;
    rows.push_back({key, model->info(), model->state(), model->last_error(), builtin});
  }
  std::ranges::sort(rows, {}, &registered_model::key);
  co_return rows;
}

template <typename Model>
auto registry_core<Model>::locate(core_ptr self, std::string key) -> asio::awaitable<entry_ptr> {
  const auto find = [self, key = std::move(key)] {
    const auto* found = self->find(key);
    return found ? *found : nullptr;
  };
  return self->mutex_.run_shared(find);
}

#else
extern template class registry_core<void>;
#endif

}  // namespace detail

ROSTER_END_NAMESPACE
