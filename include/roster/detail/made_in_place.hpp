#pragma once

#include <roster/exec/call_options.hpp>

#include <type_traits>

ROSTER_BEGIN_NAMESPACE

namespace detail {

template <typename F>
concept device_factory = std::is_invocable_v<F&, const device&>;

/// A callable that makes something that lives on one thread: `factory()` or `factory(const device&)`.
template <typename F>
concept factory = device_factory<F> || std::is_invocable_v<F&>;

template <typename F>
struct made_by_trait : std::invoke_result<F&> {};
template <device_factory F>
struct made_by_trait<F> : std::invoke_result<F&, const device&> {};

/// What a factory makes.
template <typename F>
using made_by = typename made_by_trait<F>::type;

/// Converts to the factory's result at the place where that is to live, so that it is neither copied nor moved.
template <typename T, typename F>
class made_in_place {
 public:
  made_in_place(F& function, const device& where) : function_(function), where_(where) {}

  operator T() const {
    if constexpr (device_factory<F>)
      return function_(where_);
    else
      return function_();
  }

 private:
  F& function_;
  const device& where_;
};

}  // namespace detail

ROSTER_END_NAMESPACE
