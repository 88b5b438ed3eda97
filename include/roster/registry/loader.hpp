#pragma once

#include <roster/call/model_info.hpp>
#include <roster/detail/asio.hpp>
#include <roster/exec/time_source.hpp>
#include <roster/registry/detail/load_graph.hpp>
#include <roster/registry/lease.hpp>

#include <concepts>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

template <capability Capability>
class registry;

namespace detail {
template <typename Model>
class registry_entry;
}

/// The load that a loader performs.
class load_context {
 public:
  load_context(const load_context&) = delete;
  load_context& operator=(const load_context&) = delete;

  /// The key being loaded.
  const std::string& key() const noexcept { return key_; }

  /// The information given when the model was registered.
  const model_info& info() const noexcept { return info_; }

  /// The registry's executor.
  const asio::any_io_executor& get_executor() const noexcept { return executor_; }

  /// The registry's time.
  const std::shared_ptr<time_source>& time() const noexcept { return time_; }

  /// Looks up, and loads if need be, a model that this one is made from.
  ///
  /// **Deadlock**: a loader that calls the registry directly instead waits for ever if the other load waits, directly or not,
  /// for this one.
  /// **Completion**, **Executor**, **Cancellation**: as `registry::get`.
  /// **Errors**: as `registry::get`; `load_cycle` if the other load waits, directly or not, for this one.
  template <typename Other>
  [[nodiscard]] asio::awaitable<lease<Other>> get(registry<Other>& from, std::string_view key) {
    return from.get_for(self_, key);
  }

 private:
  template <typename Model>
  friend class detail::registry_entry;

  load_context(std::string key, model_info info, asio::any_io_executor executor, std::shared_ptr<time_source> time,
               detail::load_node& self)
      : key_(std::move(key)), info_(std::move(info)), executor_(std::move(executor)), time_(std::move(time)), self_(self) {}

  std::string key_;
  model_info info_;
  asio::any_io_executor executor_;
  std::shared_ptr<time_source> time_;
  detail::load_node& self_;
};

/// Makes a model when it is first needed: any callable `asio::awaitable<std::shared_ptr<model>>(load_context&)`.
///
/// It runs on the registry's executor and must not block; it is called again after a failure. The context lives until the
/// awaitable has completed.
template <capability Capability>
class model_loader {
 public:
  /// The model it makes.
  using model_type = typename Capability::model;

  /// A loader that calls `function`.
  template <typename F>
  requires(!std::same_as<std::remove_cvref_t<F>, model_loader>) && requires(std::decay_t<F>& function, load_context& context) {
    { std::invoke(function, context) } -> std::convertible_to<asio::awaitable<std::shared_ptr<model_type>>>;
  }
  model_loader(F&& function) : implementation_(std::make_shared<erased_of<std::decay_t<F>>>(std::forward<F>(function))) {
    ROSTER_CHECK_CALLABLE(F);
  }

  /// Starts a load.
  [[nodiscard]] asio::awaitable<std::shared_ptr<model_type>> operator()(load_context& context) const {
    return implementation_->load(context);
  }

 private:
  struct erased {
    erased() = default;
    erased(const erased&) = delete;
    erased& operator=(const erased&) = delete;
    virtual ~erased() = default;
    virtual asio::awaitable<std::shared_ptr<model_type>> load(load_context& context) = 0;
  };

  template <typename F>
  struct erased_of final : erased {
    template <typename G>
    explicit erased_of(G&& g) : function(std::forward<G>(g)) {}
    asio::awaitable<std::shared_ptr<model_type>> load(load_context& context) override { return std::invoke(function, context); }
    F function;
  };

  std::shared_ptr<erased> implementation_;
};

/// Something that turns an engine into a model of the capability: knows what the model is, and makes its loader.
template <typename P, typename Capability>
concept placement_for = requires(const P& placement) {
  { placement.info() } -> std::convertible_to<model_info>;
  { placement.template loader<Capability>() } -> std::convertible_to<model_loader<Capability>>;
};

/// A model that is known from the start, under its key.
template <capability Capability>
struct builtin_model {
  /// A model that `make` loads when it is first needed.
  builtin_model(std::string model_key, model_info details, model_loader<Capability> make)
      : key(std::move(model_key)), info(std::move(details)), loader(std::move(make)) {}

  /// A model that a placement makes when it is first needed.
  template <placement_for<Capability> Placement>
  builtin_model(std::string model_key, const Placement& placement)
      : builtin_model(std::move(model_key), placement.info(), placement.template loader<Capability>()) {}

  std::string key;                  ///< what it is looked up by
  model_info info;                  ///< what is known about it
  model_loader<Capability> loader;  ///< how it is made
};

/// Models known from the start: found where nothing else is registered under their key.
template <capability Capability>
using builtin_models = std::vector<builtin_model<Capability>>;

ROSTER_END_NAMESPACE
