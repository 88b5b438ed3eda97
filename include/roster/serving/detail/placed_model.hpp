#pragma once

#include <roster/capability/capability.hpp>
#include <roster/exec/detail/start_stream.hpp>
#include <roster/exec/stream.hpp>

#include <fmt/format.h>

#include <cstddef>
#include <iterator>
#include <memory>
#include <span>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Checks that there is an output for each input, for types that have a count.
template <typename Outputs>
void check_count(const Outputs& outputs, std::size_t expected) {
  std::size_t got = expected;
  if constexpr (requires { got = outputs.rows(); })
    got = outputs.rows();
  else if constexpr (requires { got = std::size(outputs); })
    got = std::size(outputs);
  if (got != expected)
    throw error(errc::bad_output, fmt::format("the engine returned {} results for {} inputs", got, expected));
}

/// The work of a unary call, with all that it touches.
template <typename C>
class unary_work {
 public:
  unary_work(std::vector<typename C::input> inputs, typename C::options options)
      : inputs_(std::move(inputs)), options_(std::move(options)) {}

  template <typename Engine>
  typename C::outputs operator()(Engine& engine, run_context& context) {
    typename C::outputs outputs;
    engine.run(std::span<const typename C::input>(inputs_), std::as_const(options_), outputs, context);
    check_count(outputs, inputs_.size());
    return outputs;
  }

 private:
  std::vector<typename C::input> inputs_;
  typename C::options options_;
};

/// What a streaming engine is called with.
template <typename C>
class streaming_work {
 public:
  explicit streaming_work(typename C::request asked) : request_(std::move(asked)) {}

  template <typename Engine>
  void operator()(Engine& engine, sink<typename C::chunk>& chunks, run_context& context) {
    engine.run(std::as_const(request_), chunks, context);
  }

 private:
  typename C::request request_;
};

/// A model whose engine is run by a `Runner`: `run(runner, call_options, work)` is an awaitable of what `work(Engine&,
/// run_context&)` returns, and completes at once when cancelled, or at its deadline.
template <typename C, typename Runner>
class placed_unary_model final : public C::model {
 public:
  placed_unary_model(model_info info, std::shared_ptr<Runner> runner) : C::model(std::move(info)), runner_(std::move(runner)) {}

 private:
  asio::awaitable<typename C::outputs> run(std::vector<typename C::input> inputs, typename C::options options) override {
    call_options call = options;
    call.start_timeout(*runner_->time());
    return Runner::run(runner_, call, unary_work<C>(std::move(inputs), std::move(options)));
  }

  const std::shared_ptr<Runner> runner_;
};

/// The same for streams.
template <typename C, typename Runner>
class placed_streaming_model final : public C::model {
 public:
  placed_streaming_model(model_info info, std::shared_ptr<Runner> runner)
      : C::model(std::move(info)), runner_(std::move(runner)) {}

 private:
  stream<typename C::chunk> run(typename C::request request) override {
    call_options call = request;
    call.start_timeout(*runner_->time());
    return start_stream<typename C::chunk>(runner_->executor(), 64, call.deadline(), runner_->time(),
                                           streaming_work<C>(std::move(request)),
                                           [&](auto work) { return Runner::run(runner_, call, std::move(work)); });
  }

  const std::shared_ptr<Runner> runner_;
};

template <typename C, typename Runner>
std::shared_ptr<typename C::model> make_placed_model(model_info info, std::shared_ptr<Runner> runner) {
  if constexpr (unary_capability<C>)
    return std::make_shared<placed_unary_model<C, Runner>>(std::move(info), std::move(runner));
  else
    return std::make_shared<placed_streaming_model<C, Runner>>(std::move(info), std::move(runner));
}

}  // namespace detail

ROSTER_END_NAMESPACE
