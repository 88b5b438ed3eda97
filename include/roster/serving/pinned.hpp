#pragma once

#include <roster/capability/capability.hpp>
#include <roster/exec/detail/factory.hpp>
#include <roster/registry/loader.hpp>
#include <roster/serving/detail/pinned_runner.hpp>
#include <roster/serving/detail/placed_model.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

ROSTER_BEGIN_NAMESPACE

/// Places an engine on a thread of its own, for engines that may be touched from one thread only.
///
/// Loading starts the thread, which makes the engine with `factory()`, or with `factory(const device&)`, and later destroys it.
/// If the factory takes a device and there is no default device, the engine is made at the first call, on that call's device.
/// One call runs at a time, `queue_limit` wait, in order, and those beyond are refused with `queue_full`. A call for another
/// device than the engine's fails with `device_mismatch`.
///
/// The thread ends when the last lease and the last stream have dropped; it is joined by the next such thread, or by the
/// destructor of the registry's context. It posts to the contexts of callers: destroy the registry's context before them.
///
/// **Deadlock**: an engine, or its factory, that waits for the registry's loop while nobody runs it makes that destructor hang.
///
///     co_await painters.add("flux.1-schnell", roster::pinned(make_painter, "cuda:0"));
template <typename Factory>
class pinned {
 public:
  /// How many calls wait, unless told otherwise.
  static constexpr std::size_t default_queue_limit = 1024;

  /// What the factory makes.
  using engine_type = detail::factory_result_t<Factory>;

  /// An engine made by `factory`.
  template <typename F>
  requires(!std::same_as<std::remove_cvref_t<F>, pinned>) explicit pinned(F&& factory) : factory_(std::forward<F>(factory)) {
    ROSTER_CHECK_CALLABLE(F);
  }

  /// An engine made by `factory` on `default_device`.
  template <typename F>
  pinned(F&& factory, device default_device) : factory_(std::forward<F>(factory)), device_(std::move(default_device)) {
    ROSTER_CHECK_CALLABLE(F);
  }

  /// The number of calls that may wait for the engine.
  pinned& queue_limit(std::size_t calls) {
    queue_limit_ = calls;
    return *this;
  }

  /// What is known about the model before it is loaded.
  pinned& info(model_info known) {
    info_ = std::move(known);
    return *this;
  }

  /// What is known about the model before it is loaded.
  const model_info& info() const noexcept { return info_; }

  /// How a registry loads the model.
  template <capability Capability>
  model_loader<Capability> loader() const {
    static_assert(detail::check_engine<engine_type, Capability>());
    const auto load = [self = *this](load_context& context) {
      return make<Capability>(self, context.get_executor(), context.time());
    };
    return model_loader<Capability>(load);
  }

 private:
  using runner = detail::pinned_runner<engine_type>;

  template <typename Capability>
  static asio::awaitable<std::shared_ptr<typename Capability::model>> make(pinned self, asio::any_io_executor executor,
                                                                           std::shared_ptr<time_source> time) {
    auto factory = std::make_shared<detail::state_factory_of<engine_type, Factory>>(std::move(self.factory_));
    auto worker = std::make_shared<runner>(executor, std::move(factory), self.device_.value_or(device()), self.queue_limit_,
                                           std::move(time));
    if (self.device_ || !detail::device_factory<Factory>) self.info_ = co_await runner::start(worker, std::move(self.info_));
    co_return detail::make_placed_model<Capability>(std::move(self.info_), std::move(worker));
  }

  Factory factory_;
  std::optional<device> device_;
  std::size_t queue_limit_ = default_queue_limit;
  model_info info_;
};

template <typename F>
pinned(F&&) -> pinned<std::decay_t<F>>;

template <typename F>
pinned(F&&, device) -> pinned<std::decay_t<F>>;

ROSTER_END_NAMESPACE
