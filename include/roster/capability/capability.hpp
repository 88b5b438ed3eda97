#pragma once

#include <roster/call/model_info.hpp>
#include <roster/call/run_context.hpp>
#include <roster/call/sink.hpp>
#include <roster/detail/async_coroutine.hpp>
#include <roster/exec/stream.hpp>

#include <boost/asio/system_executor.hpp>

#include <concepts>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

/// What a model can do: a tag type with a `name` and the `model` class that applications call.
template <typename C>
concept capability = requires {
  { C::name } -> std::convertible_to<std::string_view>;
  typename C::model;
};

/// The *unary* call shape: a batch of `input`s and `options` go in, one `outputs` that holds as many results comes out.
template <typename C>
concept unary_capability = requires {
  typename C::input;
  typename C::options;
  typename C::outputs;
  requires std::derived_from<typename C::options, call_options>;
};

/// The *streaming* call shape: one `request`, which is a `call_options`, goes in, `chunk`s come out one after the other.
template <typename C>
concept streaming_capability = requires {
  typename C::request;
  typename C::chunk;
  requires std::derived_from<typename C::request, call_options>;
};

/// An engine of a unary capability: `run` fills `outputs` with a result for each input. It may throw, may block, and is
/// called from one thread at a time. A long call should look at `run_context::stop_requested` now and then. A batch without
/// inputs never reaches it.
///
/// It may also have `dimension()`, the length of its vectors, and `describe(model_info&)`, which adds what else it knows of
/// itself. Both are called where the engine runs, once a load has made it; the model's `info` returns the result.
template <typename Engine, typename C>
concept unary_engine = unary_capability<C> &&
    requires(Engine& engine, std::span<const typename C::input> inputs, const typename C::options& options,
             typename C::outputs& outputs, run_context& context) {
  engine.run(inputs, options, outputs, context);
};

/// An engine of a streaming capability: `run` pushes chunks and returns after the last. Otherwise like `unary_engine`.
template <typename Engine, typename C>
concept streaming_engine = streaming_capability<C> &&
    requires(Engine& engine, const typename C::request& request, sink<typename C::chunk>& chunks, run_context& context) {
  engine.run(request, chunks, context);
};

/// A type that can do the work of a capability.
template <typename Engine, typename C>
concept engine_for = unary_engine<Engine, C> || streaming_engine<Engine, C>;

namespace detail {

/// Compiles for an engine of the capability. For others it says what is missing.
template <typename Engine, typename C>
constexpr bool check_engine() {
  static_assert(unary_capability<C> || streaming_capability<C>,
                "no engine can be placed for this capability (C): it needs `input`, `options` and `outputs`, or `request` and "
                "`chunk`; `options`, or `request`, derived from call_options");
  if constexpr (unary_capability<C>)
    static_assert(unary_engine<Engine, C>,
                  "what the factory makes (Engine) is no engine for this capability (C): it needs "
                  "run(std::span<const C::input>, const C::options&, C::outputs&, roster::run_context&)");
  else if constexpr (streaming_capability<C>)
    static_assert(streaming_engine<Engine, C>,
                  "what the factory makes (Engine) is no engine for this capability (C): it needs "
                  "run(const C::request&, roster::sink<C::chunk>&, roster::run_context&)");
  return true;
}

}  // namespace detail

template <capability Capability>
class registry;

/// Base of every model: knows what it is.
class basic_model {
 public:
  basic_model(const basic_model&) = delete;
  basic_model& operator=(const basic_model&) = delete;
  virtual ~basic_model() = default;

  /// What is known about the model.
  const model_info& info() const noexcept { return info_; }

 protected:
  /// A model without information.
  basic_model() = default;

  /// A model with this information.
  explicit basic_model(model_info info) : info_(std::move(info)) {}

  /// The owner that destroys the model on the executor it was registered with; null if there is none.
  std::shared_ptr<const void> owner() const noexcept { return owner_.lock(); }

 private:
  template <capability>
  friend class registry;

  void owned_by(const std::shared_ptr<const void>& owner) noexcept { owner_ = owner; }

  model_info info_;
  std::weak_ptr<const void> owner_;  // written before the model is published
};

/// The asynchronous face of a unary engine. A capability derives its `model` from this and adds functions in its own words.
///
/// **Thread safety**: all members may be called concurrently, from any thread.
template <typename C>
class unary_model : public basic_model, public std::enable_shared_from_this<unary_model<C>> {
 public:
  using basic_model::basic_model;

  /// A result for each input; without inputs, empty outputs, without calling the engine. The call owns its inputs, and keeps
  /// the model alive if that is held by `shared_ptr`.
  ///
  /// **Completion**: when all results are there.
  /// **Executor**: resumes on the coroutine's own.
  /// **Cancellation**: terminal; the caller resumes at once, and an engine that runs is asked to stop. The deadline does the
  /// same.
  /// **Errors**: whatever the engine throws; `bad_output` when it returns another number of results than it was given inputs;
  /// `queue_full` at once when too many calls wait; `deadline_exceeded`, `device_mismatch`, `stopped`, `operation_aborted`.
  [[nodiscard]] asio::awaitable<typename C::outputs> call(std::vector<typename C::input> inputs, typename C::options options) {
    if constexpr (std::default_initializable<typename C::outputs>)
      if (inputs.empty()) return nothing();
    return call_keeping_alive(self_or_owner(), run(std::move(inputs), std::move(options)));
  }

  /// `call` for any completion token. Handler signature: `void(std::exception_ptr, outputs)`.
  ///
  /// **Completion**: exactly once, never inside this call.
  /// **Executor**: the handler's associated executor, the system executor by default.
  /// **Cancellation**: terminal; as `call`.
  /// **Errors**: as `call`.
  template <typename Token>
  [[nodiscard]] auto async_call(std::vector<typename C::input> inputs, typename C::options options, Token&& token) {
    return detail::async_coroutine(asio::system_executor(), call(std::move(inputs), std::move(options)),
                                   std::forward<Token>(token));
  }

 private:
  /// What a placement, or a model of another kind, implements. A timeout becomes a deadline by `call_options::start_timeout`.
  virtual asio::awaitable<typename C::outputs> run(std::vector<typename C::input> inputs, typename C::options options) = 0;

  static asio::awaitable<typename C::outputs> nothing() { co_return typename C::outputs(); }

  std::shared_ptr<const void> self_or_owner() {
    if (auto owner = this->owner()) return owner;
    return this->weak_from_this().lock();
  }

  static asio::awaitable<typename C::outputs> call_keeping_alive(std::shared_ptr<const void>,
                                                                 asio::awaitable<typename C::outputs> body) {
    co_return co_await std::move(body);
  }
};

/// The asynchronous face of a streaming engine.
///
/// **Thread safety**: all members may be called concurrently, from any thread.
template <typename C>
class streaming_model : public basic_model {
 public:
  using basic_model::basic_model;

  /// Starts a call. Whatever keeps it from starting is an error of the stream, which keeps alive what it needs of the model.
  /// The deadline is for the whole stream, as the engine produces it: what was produced in time can be read later.
  ///
  /// **Errors**, from the stream's `next`: whatever the engine throws; `queue_full` when too many calls wait;
  /// `deadline_exceeded`, `device_mismatch`, `stopped`.
  stream<typename C::chunk> generate(typename C::request request) { return run(std::move(request)); }

 private:
  /// What a placement, or a model of another kind, implements. A timeout becomes a deadline by `call_options::start_timeout`.
  virtual stream<typename C::chunk> run(typename C::request request) = 0;
};

ROSTER_END_NAMESPACE
