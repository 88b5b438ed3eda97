#pragma once

#include <roster/call/call_options.hpp>

#include <type_traits>

ROSTER_BEGIN_NAMESPACE

namespace detail {

template <typename F>
concept device_factory = std::is_invocable_v<F&, const device&>;

/// A callable that makes something that lives on one thread: `factory()` or `factory(const device&)`.
template <typename F>
concept factory = device_factory<F> || std::is_invocable_v<F&>;

template <typename F>
struct factory_result : std::invoke_result<F&> {};
template <device_factory F>
struct factory_result<F> : std::invoke_result<F&, const device&> {};

/// What a factory makes.
template <typename F>
using factory_result_t = typename factory_result<F>::type;

/// What a factory returned, constructed in place: neither copied nor moved.
template <typename T>
class factory_value {
 public:
  template <factory F>
  factory_value(F& function, const device& target_device) : value(make(function, target_device)) {}
  factory_value(const factory_value&) = delete;
  factory_value& operator=(const factory_value&) = delete;

  T value;

 private:
  template <typename F>
  static factory_result_t<F> make(F& function, const device& target_device) {
    if constexpr (device_factory<F>)
      return function(target_device);
    else
      return function();
  }
};

}  // namespace detail

ROSTER_END_NAMESPACE
