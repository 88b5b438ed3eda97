#pragma once

#include <roster/call/image_request.hpp>
#include <roster/capability/capability.hpp>

#include <string_view>

ROSTER_BEGIN_NAMESPACE

/// Prompts to pictures.
struct text_to_image {
  static constexpr std::string_view name = "text_to_image";  ///< as it is printed
  using request = image_request;                             ///< what goes in
  using chunk = image_event;                                 ///< what comes out, step by step
  using model = streaming_model<text_to_image>;              ///< what applications call
};

ROSTER_END_NAMESPACE
