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
struct made_by_trait : std::invoke_result<F&> {};
template <device_factory F>
struct made_by_trait<F> : std::invoke_result<F&, const device&> {};

/// What a factory makes.
template <typename F>
using made_by = typename made_by_trait<F>::type;

/// What a factory made, at the place where it lives: neither copied nor moved.
template <typename T>
class made_in_place {
 public:
  template <factory F>
  made_in_place(F& function, const device& where) : value(make(function, where)) {}
  made_in_place(const made_in_place&) = delete;
  made_in_place& operator=(const made_in_place&) = delete;

  T value;

 private:
  template <typename F>
  static made_by<F> make(F& function, const device& where) {
    if constexpr (device_factory<F>)
      return function(where);
    else
      return function();
  }
};

}  // namespace detail

ROSTER_END_NAMESPACE
