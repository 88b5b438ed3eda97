#pragma once

#include <roster/call/model_info.hpp>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Adds what an engine knows of itself: `dimension()`, and anything else in `describe(model_info&)`.
template <typename Engine>
void describe_engine(Engine& engine, model_info& info) {
  if constexpr (requires { info.dimension = engine.dimension(); }) info.dimension = engine.dimension();
  if constexpr (requires { engine.describe(info); }) engine.describe(info);
}

}  // namespace detail

ROSTER_END_NAMESPACE
