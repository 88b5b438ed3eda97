#pragma once

#include <roster/call/model_info.hpp>
#include <roster/detail/asio.hpp>
#include <roster/detail/context_bound.hpp>
#include <roster/detail/separate_compilation.hpp>
#include <roster/registry/detail/load_graph.hpp>
#include <roster/registry/loader.hpp>
#include <roster/registry/registered_model.hpp>
#include <roster/sync/once_cell.hpp>

#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/system/system_error.hpp>

#include <fmt/format.h>

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// The ends of a text, if it is long.
inline std::string shortened(std::string text) {
  constexpr std::size_t end = 500;
  if (text.size() <= 2 * end) return text;
  const auto inside_character = [&](std::size_t at) { return (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80; };
  auto first = end, last = text.size() - end;
  while (first > 0 && inside_character(first))
    --first;
  while (last < text.size() && inside_character(last))
    ++last;
  return text.replace(first, last - first, " ... ");
}

/// Why a load failed. If another load's failure caused it, with the keys of both; of a long chain, those at its ends.
inline std::string reason_of(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const load_error& e) {
    return shortened('\'' + e.key() + "': " + e.reason());
  } catch (...) {
    return message_of(failure);
  }
}

/// What is known of the models of one capability.
struct model_traits {
  std::string_view capability;
  model_info (*info)(void* model);  // null if such models do not tell
};

template <typename Capability>
const model_traits& model_traits_of() {
  using model = typename Capability::model;
  static const auto traits = [] {
    model_traits known{Capability::name, nullptr};
    if constexpr (requires { model_info(std::declval<model&>().info()); })
      known.info = [](void* each) { return model_info(static_cast<model*>(each)->info()); };
    return known;
  }();
  return traits;
}

/// One registration of a key: a model, or how to load it. `Model` is `void` for models of any type.
template <typename Model>
class registry_entry {
 public:
  using model_ptr = std::shared_ptr<Model>;
  using loader_type = std::function<asio::awaitable<model_ptr>(load_context&)>;

  /// A model that is ready.
  registry_entry(const model_traits& traits, model_ptr model) : traits_(traits), model_(std::move(model)), ready_(&model_) {}

  /// A model that is loaded when it is first needed.
  registry_entry(const model_traits& traits, std::string key, model_info info, loader_type loader,
                 std::shared_ptr<const context_bound> context, std::shared_ptr<time_source> time);

  ~registry_entry();

  /// The model, if it is there. The pointer is valid as long as the entry.
  const model_ptr* try_get() const noexcept {
    const auto* ready = ready_.load(std::memory_order_acquire);
    return ready || !lazy_ ? ready : lazy_->cell.try_get();
  }

  /// Who loads it; null for a model that was there from the start.
  load_node* node() const noexcept { return lazy_ ? &lazy_->node : nullptr; }

  /// The model, loaded if need be.
  static asio::awaitable<model_ptr> load(std::shared_ptr<registry_entry> self);

  model_info info() const {
    const auto* ready = traits_.info ? try_get() : nullptr;
    return ready ? traits_.info(ready->get()) : info_;
  }

  load_state state() const noexcept { return try_get() ? load_state::ready : lazy_->state.load(); }

  std::string last_error() const;

 private:
  struct lazy_part {
    lazy_part(std::string_view capability, std::string entry_key, loader_type entry_loader,
              std::shared_ptr<const context_bound> entry_context, std::shared_ptr<time_source> entry_time)
        : key(std::move(entry_key)),
          node(fmt::format("{} '{}'", capability, key)),
          loader(std::move(entry_loader)),
          context(std::move(entry_context)),
          time(std::move(entry_time)),
          cell(context->executor()) {}

    void failed(std::shared_ptr<const std::string> message) noexcept {
      remember(std::move(message));
      state = load_state::failed;  // last: whoever sees it finds the message
    }

    void remember(std::shared_ptr<const std::string> message) noexcept {
      std::lock_guard lock(mutex);  // short:
      last_error.swap(message);
    }

    const std::string key;
    load_node node;
    const loader_type loader;
    const std::shared_ptr<const context_bound> context;
    const std::shared_ptr<time_source> time;
    async_once_cell<model_ptr> cell;
    std::atomic<load_state> state{load_state::unloaded};
    mutable std::mutex mutex;
    std::shared_ptr<const std::string> last_error;
  };

  /// Marks a load as failed if its frame is destroyed before it has ended.
  class unfinished_load {
   public:
    explicit unfinished_load(lazy_part& lazy)
        : lazy_(&lazy),
          message_(std::make_shared<const std::string>("the load was broken off: its context is gone, or an "
                                                       "operation of the loader could not be started")) {}
    unfinished_load(const unfinished_load&) = delete;
    unfinished_load& operator=(const unfinished_load&) = delete;
    ~unfinished_load() {
      if (lazy_) lazy_->failed(std::move(message_));
    }
    void ended() noexcept { lazy_ = nullptr; }

   private:
    lazy_part* lazy_;
    std::shared_ptr<const std::string> message_;
  };

  static asio::awaitable<model_ptr> run_loader(std::shared_ptr<registry_entry> self);

  const model_traits& traits_;
  // Adjacent, because a lookup needs both.
  const model_ptr model_;
  std::atomic<const model_ptr*> ready_{nullptr};
  model_info info_;
  const std::unique_ptr<lazy_part> lazy_;  // null for a model that was there from the start
};

#if ROSTER_DEFINITIONS_HERE

template <typename Model>
registry_entry<Model>::registry_entry(const model_traits& traits, std::string key, model_info info, loader_type loader,
                                      std::shared_ptr<const context_bound> context, std::shared_ptr<time_source> time)
    : traits_(traits),
      info_(std::move(info)),
      lazy_(std::make_unique<lazy_part>(traits.capability, std::move(key), std::move(loader), std::move(context),
                                        std::move(time))) {}

template <typename Model>
registry_entry<Model>::~registry_entry() = default;

template <typename Model>
auto registry_entry<Model>::load(std::shared_ptr<registry_entry> self) -> asio::awaitable<model_ptr> {
  if (const auto* ready = self->try_get()) co_return *ready;
  auto flight = self->lazy_->cell.get_or_init(run_loader, self);
  std::exception_ptr cause;
  try {
    const auto model = co_await std::move(flight);
    self->ready_.store(self->lazy_->cell.try_get(), std::memory_order_release);
    co_return *model;
  } catch (const load_error& failure) {
    throw load_error(failure.key(), failure.cause(), failure.reason());  // callers on several threads: one exception each
  } catch (const flight_lost&) {
    cause = std::current_exception();
  } catch (const boost::system::system_error& failure) {
    if (failure.code() == asio::error::operation_aborted || failure.code() == errc::would_deadlock) throw;
    cause = std::current_exception();
  } catch (...) {
    cause = std::current_exception();
  }
  throw load_error(self->lazy_->key, cause, reason_of(cause));  // the loader could not even be started
}

template <typename Model>
std::string registry_entry<Model>::last_error() const {
  if (!lazy_) return {};
  auto message = [this] {
    std::lock_guard lock(lazy_->mutex);  // short:
    return lazy_->last_error;
  }();
  return message ? *message : std::string();
}

template <typename Model>
auto registry_entry<Model>::run_loader(std::shared_ptr<registry_entry> self) -> asio::awaitable<model_ptr> {
  auto& lazy = *self->lazy_;
  unfinished_load unfinished(lazy);
  const auto before = lazy.state.exchange(load_state::loading);
  std::exception_ptr cause;
  try {
    load_context context(lazy.key, self->info_, lazy.context->executor(), lazy.time, lazy.node);
    auto model = co_await lazy.loader(context);
    if (!model) throw error(errc::bad_model, "the loader returned no model");
    lazy.remember(nullptr);  // fault b30: drop: an entry keeps the error of a load that failed before
    unfinished.ended();
    co_return model;
  } catch (...) {
    cause = std::current_exception();
  }
  auto reason = std::make_shared<const std::string>(reason_of(cause));
  const asio::cancellation_state cancellation = co_await asio::this_coro::cancellation_state;
  unfinished.ended();
  // fault r1: always: a load that nobody waits for any more has failed
  if (cancellation.cancelled() == asio::cancellation_type::none)
    lazy.failed(reason);
  else
    lazy.state = before;  // nobody waits any more: the model did not fail
  throw load_error(lazy.key, cause, *reason);
}

#else
extern template class registry_entry<void>;
#endif

}  // namespace detail

ROSTER_END_NAMESPACE
