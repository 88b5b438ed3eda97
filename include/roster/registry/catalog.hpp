#pragma once

#include <roster/registry/registry.hpp>

#include <string_view>
#include <tuple>
#include <utility>

ROSTER_BEGIN_NAMESPACE

/// The registries of an application: one for each capability, on one executor.
///
/// The same key under two capabilities names two models that have nothing to do with each other.
///
/// **Thread safety**: as `registry`.
///
///     roster::catalog<roster::image_embedding, roster::text_to_image> models{executor};
///     auto painter = co_await models.get<roster::text_to_image>("flux.1-schnell");
template <capability... Capabilities>
class catalog {
 public:
  /// Empty registries whose loaders run on `executor`.
  explicit catalog(asio::any_io_executor executor) : registries_(given<Capabilities>(executor)...) {}

  /// Registries with built-in models, one table for each capability.
  explicit catalog(asio::any_io_executor executor,
                   const builtin_models<Capabilities>&... builtin) requires(sizeof...(Capabilities) > 0)
      : registries_(given<Capabilities>(executor, builtin)...) {}

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

 private:
  template <typename Capability>
  struct given {
    explicit given(const asio::any_io_executor& where) : executor(where) {}
    given(const asio::any_io_executor& where, const builtin_models<Capability>& models) : executor(where), builtin(&models) {}
    const asio::any_io_executor& executor;
    const builtin_models<Capability>* builtin = nullptr;
  };

  template <typename Capability>
  struct holder {
    holder(const given<Capability>& from)
        : models(from.executor, from.builtin ? *from.builtin : builtin_models<Capability>()) {}
    registry<Capability> models;
  };

  std::tuple<holder<Capabilities>...> registries_;
};

ROSTER_END_NAMESPACE
