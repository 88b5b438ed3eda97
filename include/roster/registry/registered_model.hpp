#pragma once

#include <roster/call/model_info.hpp>

#include <string>
#include <string_view>

ROSTER_BEGIN_NAMESPACE

/// How far a registered model is.
enum class load_state {
  unloaded,  ///< nobody has asked for it yet, or all who did have left
  loading,   ///< its loader runs
  ready,     ///< it can be used
  failed     ///< the last load failed; the next lookup tries again
};

/// The name of a state, as it is spelled above.
constexpr std::string_view to_string(load_state state) noexcept {
  switch (state) {
    case load_state::unloaded:
      return "unloaded";
    case load_state::loading:
      return "loading";
    case load_state::ready:
      return "ready";
    case load_state::failed:
      return "failed";
  }
  return "unknown";
}

/// What a registry tells of one of its models.
struct registered_model {
  std::string key;         ///< what it is looked up by
  model_info info;         ///< what is known about it
  load_state state;        ///< how far it is
  std::string last_error;  ///< why the last load failed, empty if none did
  bool builtin;            ///< one of the registry's defaults
};

ROSTER_END_NAMESPACE
