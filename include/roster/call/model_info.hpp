#pragma once

#include <roster/version.hpp>

#include <cstddef>
#include <string>
#include <utility>

ROSTER_BEGIN_NAMESPACE

/// What is known about a model before it is loaded, and what its engine adds afterwards. Zero and empty mean unknown.
struct model_info {
  /// Nothing known.
  model_info() noexcept {}

  /// A model by its maker and name.
  model_info(std::string maker, std::string model) : provider(std::move(maker)), name(std::move(model)) {}

  std::string provider;              ///< who made it
  std::string name;                  ///< what its maker calls it
  std::string licence;               ///< an SPDX identifier where there is one
  std::size_t dimension = 0;         ///< the length of its vectors
  std::size_t context_length = 0;    ///< in tokens
  std::size_t max_image_width = 0;   ///< in pixels
  std::size_t max_image_height = 0;  ///< in pixels
  std::size_t memory_bytes = 0;      ///< expected while loaded
};

ROSTER_END_NAMESPACE
