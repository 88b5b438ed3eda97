#pragma once

#include <roster/call/text_request.hpp>
#include <roster/capability/capability.hpp>

#include <string_view>

ROSTER_BEGIN_NAMESPACE

/// Prompts and conversations to text.
struct text_to_text {
  static constexpr std::string_view name = "text_to_text";  ///< as it is printed
  using request = text_request;                             ///< what goes in
  using chunk = text_event;                                 ///< what comes out, piece by piece
  using model = streaming_model<text_to_text>;              ///< what applications call
};

ROSTER_END_NAMESPACE
