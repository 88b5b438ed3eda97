#pragma once

#include <roster/call/embed_options.hpp>
#include <roster/call/embeddings.hpp>
#include <roster/call/image.hpp>
#include <roster/capability/embedding_model.hpp>

#include <string_view>

ROSTER_BEGIN_NAMESPACE

/// Images to vectors.
struct image_embedding {
  static constexpr std::string_view name = "image_embedding";  ///< as it is printed
  using input = image;                                         ///< one item of a batch
  using options = embed_options;                               ///< of a call
  using outputs = embeddings;                                  ///< a row for each input
  using model = embedding_model<image_embedding>;              ///< what applications call
};

ROSTER_END_NAMESPACE
