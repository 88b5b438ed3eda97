#pragma once

#include <roster/registry/registry.hpp>

#include <functional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

/// What a catalog tells of one of its models.
struct catalogued_model {
  /// A model of the capability with this name.
  catalogued_model(std::string_view capability_name, registered_model registered)
      : capability(capability_name), model(std::move(registered)) {}

  std::string_view capability;  ///< what it can do
  registered_model model;       ///< what its registry tells of it
};

/// The registries of an application: one for each capability, on one executor.
///
/// The same key under two capabilities names two unrelated models.
///
/// **Thread safety**: as `registry`.
///
///     roster::catalog<roster::image_embedding, roster::text_to_image> models{executor};
///     auto painter = co_await models.get<roster::text_to_image>("flux.1-schnell");
template <capability... Capabilities>
class catalog {
 public:
  /// Empty registries whose loaders run on `executor`.
  explicit catalog(asio::any_io_executor executor) : catalog(std::move(executor), steady_time()) {}

  /// The same, with the time of all registries; null is an `invalid_argument`.
  catalog(asio::any_io_executor executor, std::shared_ptr<time_source> time)
      : registries_(registry_args<Capabilities>(executor, time)...) {}

  /// Registries with built-in models, one table for each capability.
  explicit catalog(asio::any_io_executor executor,
                   const builtin_models<Capabilities>&... builtin) requires(sizeof...(Capabilities) > 0)
      : catalog(std::move(executor), steady_time(), builtin...) {}

  /// The same, with the time of all registries; null is an `invalid_argument`.
  catalog(asio::any_io_executor executor, std::shared_ptr<time_source> time,
          const builtin_models<Capabilities>&... builtin) requires(sizeof...(Capabilities) > 0)
      : registries_(registry_args<Capabilities>(executor, time, builtin)...) {}

  /// The registry of one capability.
  template <capability Capability>
  registry<Capability>& of() noexcept {
    return std::get<holder<Capability>>(registries_).models;
  }

  /// `registry::add` of that capability.
  template <capability Capability, typename... Args>
  [[nodiscard]] asio::awaitable<void> add(std::string_view key, Args&&... args) {
    return of<Capability>().add(key, std::forward<Args>(args)...);
  }

  /// `registry::get` of that capability.
  template <capability Capability>
  [[nodiscard]] asio::awaitable<lease<Capability>> get(std::string_view key) {
    return of<Capability>().get(key);
  }

  /// `registry::try_get` of that capability.
  template <capability Capability>
  [[nodiscard]] boost::system::result<lease<Capability>> try_get(std::string_view key) {
    return of<Capability>().try_get(key);
  }

  /// All models, by capability in the catalog's order, and sorted by key.
  [[nodiscard]] asio::awaitable<std::vector<catalogued_model>> list() {
    std::vector<part> parts;
    (parts.emplace_back(Capabilities::name, of<Capabilities>().list()), ...);
    return list(std::move(parts));
  }

  /// Calls `function` with the registry of the capability called `name`, and returns what it returns, which has to be the same
  /// type for all capabilities. For names that are known at run time only, such as those in a request. g++ 12 needs a callable
  /// with captures to be named first, and passed as lvalue.
  ///
  /// **Errors**: `not_found` if the catalog has no capability of that name.
  template <typename F>
  decltype(auto) visit(std::string_view name, F&& function) requires(sizeof...(Capabilities) > 0) {
    ROSTER_CHECK_CALLABLE(F);
    using first_result = typename std::tuple_element_t<0, std::tuple<std::type_identity<result_for<F, Capabilities>>...>>::type;
    static_assert((std::is_same_v<result_for<F, Capabilities>, first_result> && ...),
                  "the function (F) has to return the same type for the registries of all capabilities");
    return visit_one<F, Capabilities...>(name, function);
  }

 private:
  template <typename F, typename Capability>
  using result_for = std::invoke_result_t<F&, registry<Capability>&>;

  using part = std::pair<std::string_view, asio::awaitable<std::vector<registered_model>>>;

  static asio::awaitable<std::vector<catalogued_model>> list(std::vector<part> parts) {
    std::vector<catalogued_model> rows;
    for (auto& [name, listing] : parts) {
      auto models = co_await std::move(listing);
      for (auto& each : models)
        rows.emplace_back(name, std::move(each));
    }
    co_return rows;
  }

  template <typename F, typename First, typename... Rest>
  decltype(auto) visit_one(std::string_view name, F& function) {
    if (First::name == name) return std::invoke(function, of<First>());
    if constexpr (sizeof...(Rest) > 0)
      return visit_one<F, Rest...>(name, function);
    else
      throw error(errc::not_found, "capability '" + std::string(name) + '\'');
  }

  template <typename Capability>
  struct registry_args {
    registry_args(const asio::any_io_executor& loop_executor, const std::shared_ptr<time_source>& loop_time)
        : executor(loop_executor), time(loop_time) {}
    registry_args(const asio::any_io_executor& loop_executor, const std::shared_ptr<time_source>& loop_time,
                  const builtin_models<Capability>& models)
        : executor(loop_executor), time(loop_time), builtin(&models) {}
    const asio::any_io_executor& executor;
    const std::shared_ptr<time_source>& time;
    const builtin_models<Capability>* builtin = nullptr;
  };

  template <typename Capability>
  struct holder {
    holder(const registry_args<Capability>& from)
        : models(from.executor, from.builtin ? *from.builtin : builtin_models<Capability>(), from.time) {}
    registry<Capability> models;
  };

  std::tuple<holder<Capabilities>...> registries_;
};

ROSTER_END_NAMESPACE
