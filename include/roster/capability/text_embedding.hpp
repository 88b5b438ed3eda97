#pragma once

#include <roster/call/embed_options.hpp>
#include <roster/call/embeddings.hpp>
#include <roster/capability/embedding_model.hpp>

#include <string>
#include <string_view>

ROSTER_BEGIN_NAMESPACE

/// UTF-8 texts to vectors.
struct text_embedding {
  static constexpr std::string_view name = "text_embedding";  ///< as it is printed
  using input = std::string;                                  ///< one item of a batch
  using options = text_embed_options;                         ///< of a call
  using outputs = embeddings;                                 ///< a row for each input
  using model = embedding_model<text_embedding>;              ///< what applications call
};

ROSTER_END_NAMESPACE
