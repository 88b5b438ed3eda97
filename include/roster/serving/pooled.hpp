#pragma once

#include <roster/capability/capability.hpp>
#include <roster/exec/blocking_pool.hpp>
#include <roster/exec/detail/factory.hpp>
#include <roster/registry/loader.hpp>
#include <roster/serving/detail/placed_model.hpp>
#include <roster/serving/detail/pooled_runner.hpp>

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

ROSTER_BEGIN_NAMESPACE

/// Places an engine on a blocking pool.
///
/// Loading makes `instances` engines with `factory()`, one after the other, on the pool; each runs one call at a time. Of
/// further calls `queue_limit` wait, in order, and those beyond are refused with `queue_full`. The engines are destroyed on the
/// pool, wherever the last lease drops; once the pool itself is gone, calls fail with `stopped`, and engines are destroyed
/// where they are dropped.
///
/// A load occupies a thread of the pool like a call does: on a pool of one thread it delays the calls of every model there.
///
///     co_await encoders.add("digits", roster::pooled(pool, make_encoder).instances(2));
template <typename Factory>
class pooled {
 public:
  /// How many calls wait, unless told otherwise.
  static constexpr std::size_t default_queue_limit = 1024;

  /// What the factory makes.
  using engine_type = detail::factory_result_t<Factory>;

  /// One engine, made by `factory`, on `pool`.
  template <typename F>
  pooled(blocking_pool& pool, F&& factory) : queue_(pool.shared_queue()), factory_(std::forward<F>(factory)) {
    ROSTER_CHECK_CALLABLE(F);
  }

  /// The number of engines, and so of calls that run at once; at least one.
  pooled& instances(std::size_t count) {
    if (count == 0) throw error(errc::invalid_argument, "pooled: needs at least one instance");
    instances_ = count;
    return *this;
  }

  /// The number of calls that may wait for an engine.
  pooled& queue_limit(std::size_t calls) {
    queue_limit_ = calls;
    return *this;
  }

  /// What is known about the model before it is loaded.
  pooled& info(model_info known) {
    info_ = std::move(known);
    return *this;
  }

  /// What is known about the model before it is loaded.
  const model_info& info() const noexcept { return info_; }

  /// How a registry loads the model.
  template <capability Capability>
  model_loader<Capability> loader() const {
    static_assert(detail::check_engine<engine_type, Capability>());
    const auto load = [self = *this](load_context& context) { return make<Capability>(self, context.get_executor()); };
    return model_loader<Capability>(load);
  }

 private:
  using runner = detail::pooled_runner<engine_type>;

  template <typename Capability>
  static asio::awaitable<std::shared_ptr<typename Capability::model>> make(pooled self, asio::any_io_executor executor) {
    auto engines = std::make_shared<runner>(self.queue_, std::move(executor), self.instances_, self.queue_limit_);
    for (std::size_t i = 0; i < self.instances_; ++i)
      self.info_ = co_await runner::add_engine(engines, self.factory_, std::move(self.info_));
    co_return detail::make_placed_model<Capability>(std::move(self.info_), std::move(engines));
  }

  std::shared_ptr<detail::task_queue> queue_;
  Factory factory_;
  std::size_t instances_ = 1;
  std::size_t queue_limit_ = default_queue_limit;
  model_info info_;
};

template <typename F>
pooled(blocking_pool&, F&&) -> pooled<std::decay_t<F>>;

ROSTER_END_NAMESPACE
