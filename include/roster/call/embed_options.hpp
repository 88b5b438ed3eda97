#pragma once

#include <roster/call/call_options.hpp>

#include <string>
#include <utility>

ROSTER_BEGIN_NAMESPACE

/// How to embed images.
class embed_options : public call_options_for<embed_options> {
 public:
  /// No deadline, any device.
  embed_options() noexcept {}
};

/// How to embed texts.
class text_embed_options : public call_options_for<text_embed_options> {
 public:
  /// No instruction, no deadline, any device.
  text_embed_options() noexcept {}

  /// The task the vectors are for, for models that take one: `search_query`, or a sentence.
  text_embed_options& instruction(std::string text) {
    instruction_ = std::move(text);
    return *this;
  }

  /// The task, empty if none is given.
  const std::string& instruction() const noexcept { return instruction_; }

 private:
  std::string instruction_;
};

ROSTER_END_NAMESPACE
