#pragma once

#include <roster/detail/async_coroutine.hpp>
#include <roster/detail/context_bound.hpp>
#include <roster/exec/time_source.hpp>
#include <roster/exec/within.hpp>
#include <roster/registry/detail/registry_core.hpp>
#include <roster/registry/lease.hpp>
#include <roster/registry/loader.hpp>
#include <roster/registry/registered_model.hpp>

#include <boost/system/result.hpp>

#include <concepts>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

/// The models of one capability, by key.
///
/// A lookup never waits for a load that it did not ask for, and never blocks a thread; a slow load delays nobody else. A change
/// is made when its turn comes, even if the loop of its caller is busy, so a busy loop delays nobody else.
/// Models are loaded when they are first needed, once, however many callers wait; after a failure the next lookup tries again.
/// Keys are arbitrary bytes, at least one.
///
/// Built-in models, given at construction, are found unless another model is registered under their key.
///
/// Destroying the registry leaves leases, and lookups under way, unharmed.
///
/// Loads run on the registry's context, which they keep running until they have ended. If all lookups are awaited on other
/// loops, that context has no work between loads and needs a work guard. If memory runs out, the same happens as in
/// `async_once_cell`.
///
/// `invalid_argument` and `stopped` are thrown by the call itself, other errors when its result is awaited.
///
/// **Thread safety**: all members but the destructor may be called concurrently, from any thread.
///
///     roster::registry<roster::image_embedding> encoders{executor};
///     co_await encoders.add("digits", roster::pooled(pool, make_encoder));
///     auto encoder = co_await encoders.get("digits");
template <capability Capability>
class registry {
 public:
  /// What the registry holds.
  using model_type = typename Capability::model;

  /// Shared ownership of a model.
  using model_ptr = std::shared_ptr<model_type>;

  /// What a lookup returns.
  using lease_type = lease<Capability>;

  /// A registry whose loaders run on `executor`, with `builtin` to fall back on. The deadlines of calls of models that live on
  /// threads of their own are by `time`; those of pooled models are by their pool's.
  ///
  /// **Errors**: `invalid_argument` if `builtin` has an empty key or `time` is null, `already_exists` if it has one twice.
  explicit registry(asio::any_io_executor executor, const builtin_models<Capability>& builtin = builtin_models<Capability>(),
                    std::shared_ptr<time_source> time = steady_time())
      : core_(std::make_shared<core>(detail::model_traits_of<Capability>(), executor, std::move(time))) {
    for (const auto& each : builtin)
      core_->add_default(each.key, make_entry(each.key, each.info, each.loader));
  }

  /// The same, on the executor of `context`.
  explicit registry(detail::execution_context_like auto& context,
                    const builtin_models<Capability>& builtin = builtin_models<Capability>(),
                    std::shared_ptr<time_source> time = steady_time())
      : registry(asio::any_io_executor(context.get_executor()), builtin, std::move(time)) {}

  registry(const registry&) = delete;
  registry& operator=(const registry&) = delete;

  /// Registers a model that is ready. It is destroyed where its last lease drops.
  ///
  /// **Completion**: when it can be found.
  /// **Executor**: resumes on the coroutine's own.
  /// **Cancellation**: terminal; nothing is registered then.
  /// **Errors**: `already_exists`; `invalid_argument` for an empty key or a null model; `operation_aborted`.
  [[nodiscard]] asio::awaitable<void> add(std::string_view key, model_ptr model) {
    return core::insert(core_, core::check(key), make_entry(std::move(model)));
  }

  /// The same, for a model that must be destroyed on `destroy_on`, wherever its last lease drops. It must not be in use yet,
  /// and be registered in this way under one key at a time; if it derives from `basic_model` this is checked, with the error
  /// `invalid_argument`. Its end posts it to `destroy_on`; if memory for that runs out, the program terminates.
  [[nodiscard]] asio::awaitable<void> add(std::string_view key, model_ptr model, asio::any_io_executor destroy_on) {
    return core::insert(core_, core::check(key), make_entry(destroyed_on(destroy_on, std::move(model))));
  }

  /// Registers a model that `loader` makes when it is first needed. Otherwise like the other forms.
  /// Adds the error `stopped`, once the registry's context is gone.
  [[nodiscard]] asio::awaitable<void> add(std::string_view key, model_info info, model_loader<Capability> loader) {
    return core::insert(core_, core::check(key), make_entry(key, std::move(info), std::move(loader)));
  }

  /// Registers a model that a placement makes when it is first needed. Otherwise like the form with a loader.
  template <placement_for<Capability> Placement>
  [[nodiscard]] asio::awaitable<void> add(std::string_view key, const Placement& placement) {
    return add(key, placement.info(), placement.template loader<Capability>());
  }

  /// Swaps the model under a key. Leases of the old one stay valid, and calls made through them run there.
  ///
  /// **Completion**: when lookups find the new one.
  /// **Cancellation**: terminal; the old one stays then.
  /// **Errors**: `not_found` if no model is registered under the key, built-in ones aside; `invalid_argument` and
  /// `operation_aborted` as `add`.
  [[nodiscard]] asio::awaitable<void> replace(std::string_view key, model_ptr model) {
    return core::exchange(core_, core::check(key), make_entry(std::move(model)));
  }

  /// The same, with a model that is loaded first: the old one serves until then, and stays if the load fails.
  /// Adds the errors `load_failed`, and `stopped` once the registry's context is gone.
  [[nodiscard]] asio::awaitable<void> replace(std::string_view key, model_info info, model_loader<Capability> loader) {
    return core::exchange(core_, core::check(key), make_entry(key, std::move(info), std::move(loader)));
  }

  /// The same, with a model that a placement makes first.
  template <placement_for<Capability> Placement>
  [[nodiscard]] asio::awaitable<void> replace(std::string_view key, const Placement& placement) {
    return replace(key, placement.info(), placement.template loader<Capability>());
  }

  /// Removes what was registered under a key; a built-in model of that key shows again. Leases stay valid, loads under way go
  /// on for those who wait for them. False if there was nothing to remove.
  ///
  /// **Cancellation**: terminal; nothing is removed then.
  /// **Errors**: `operation_aborted`.
  [[nodiscard]] asio::awaitable<bool> remove(std::string_view key) { return core::erase(core_, std::string(key)); }

  /// Whether a lookup of `key` would find a model, loaded or not.
  [[nodiscard]] asio::awaitable<bool> contains(std::string_view key) { return core::contains(core_, std::string(key)); }

  /// All models, sorted by key.
  [[nodiscard]] asio::awaitable<std::vector<registered_model>> list() { return core::list(core_); }

  /// Looks a model up, and loads it if that is needed.
  ///
  /// **Completion**: with a lease; at once, without suspending, when the model is loaded and the registry is not being changed.
  /// **Executor**: resumes on the coroutine's own; the loader runs on the registry's.
  /// **Cancellation**: terminal; the load goes on if others wait for it.
  /// **Errors**: `not_found`; `load_error`, which holds what the loader threw; `operation_aborted`, also when the registry's
  /// context is gone; `would_deadlock` for a loader that asks for its own model here.
  [[nodiscard]] asio::awaitable<lease_type> get(std::string_view key) {
    if (auto found = try_get(key)) return ready(std::move(*found));
    return look_up(key, nullptr);
  }

  /// The same, for no longer than the options' deadline or timeout, by the registry's time. A model that is loaded is found all
  /// the same; a load that others wait for goes on. A device says nothing here. Adds the error `deadline_exceeded`.
  [[nodiscard]] asio::awaitable<lease_type> get(std::string_view key, call_options options) {
    if (auto found = try_get(key)) return ready(std::move(*found));
    options.start_timeout(*core_->time());
    // fault d3: always: a lookup waits for a load past its deadline
    if (!options.deadline()) return look_up(key, nullptr);
    return leased(within(core_->time(), *options.deadline(), core::look_up(core_, std::string(key), nullptr)));
  }

  /// `get` for any completion token. Handler signature: `void(std::exception_ptr, lease)`.
  ///
  /// **Completion**: exactly once, never inside this call.
  /// **Executor**: the handler's associated executor, the registry's by default.
  /// **Cancellation**: terminal; as `get`.
  /// **Errors**: as `get`.
  template <typename Token>
  [[nodiscard]] auto async_get(std::string_view key, Token&& token) {
    return detail::async_coroutine(get_executor(), get(key), std::forward<Token>(token));
  }

  /// Looks a model up without ever waiting.
  ///
  /// **Errors**: `would_block` while the registry is being changed; `not_loaded`; `not_found`.
  [[nodiscard]] boost::system::result<lease_type> try_get(std::string_view key) const {
    auto found = core_->try_get(key);
    if (!found.model) return make_error_code(found.error);
    return lease_of(std::move(found.model));
  }

  /// Loads a model, if that is needed, for later lookups. Otherwise like `get`.
  [[nodiscard]] asio::awaitable<void> preload(std::string_view key) { return preload(get(key)); }

  /// The executor that loaders run on.
  const asio::any_io_executor& get_executor() const noexcept { return core_->executor(); }

 private:
  friend class load_context;

  using core = detail::registry_core<void>;
  using any_model = core::model_ptr;

  core::entry_ptr make_entry(model_ptr model) const { return core_->make_entry(std::move(model)); }

  core::entry_ptr make_entry(std::string_view key, model_info info, model_loader<Capability> loader) const {
    const auto load = [loader = std::move(loader)](load_context& context) { return any_model_of(loader(context)); };
    return core_->make_entry(key, std::move(info), load);
  }

  static asio::awaitable<any_model> any_model_of(asio::awaitable<model_ptr> load) { co_return co_await std::move(load); }

  /// The same model under a new ownership, whose end posts the release of the original to `executor`, unless its context is
  /// gone.
  static model_ptr destroyed_on(const asio::any_io_executor& executor, model_ptr model) {
    if (!model) return nullptr;
    auto* raw = model.get();
    if constexpr (std::derived_from<model_type, basic_model>)
      if (raw->owner()) throw error(errc::invalid_argument, "the model is already registered with an executor");
    model_ptr owner(raw, [context = detail::make_context_bound<detail::context_bound>(executor),
                          original = std::move(model)](model_type*) mutable {
      auto last = std::move(original);  // not left in here: the model itself has a weak reference to this
      if (context->executor()) asio::post(context->executor(), [last = std::move(last)] {});
    });
    if constexpr (std::derived_from<model_type, basic_model>) raw->owned_by(owner);
    return owner;
  }

  static asio::awaitable<lease_type> ready(lease_type found) { co_return found; }

  static asio::awaitable<void> preload(asio::awaitable<lease_type> lookup) { (void)co_await std::move(lookup); }

  asio::awaitable<lease_type> get_for(detail::load_node& asker, std::string_view key) { return look_up(key, &asker); }

  asio::awaitable<lease_type> look_up(std::string_view key, detail::load_node* asker) {
    return leased(core::look_up(core_, std::string(key), asker));
  }

  static asio::awaitable<lease_type> leased(asio::awaitable<any_model> lookup) {
    auto model = co_await std::move(lookup);
    co_return lease_of(std::move(model));
  }

  static lease_type lease_of(any_model model) noexcept {
    return lease_type(std::static_pointer_cast<model_type>(std::move(model)));
  }

  const std::shared_ptr<core> core_;
};

ROSTER_END_NAMESPACE
