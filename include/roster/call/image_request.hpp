#pragma once

#include <roster/call/call_options.hpp>
#include <roster/call/image.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

ROSTER_BEGIN_NAMESPACE

/// What to draw, and how. Which values a model takes is the model's to say, by `invalid_input`.
class image_request : public call_options_for<image_request> {
 public:
  /// Draw `prompt`, with the model's own defaults for all the rest.
  explicit image_request(std::string prompt) : prompt_(std::move(prompt)) {}

  /// What the picture must not show.
  image_request& negative_prompt(std::string text) {
    negative_prompt_ = std::move(text);
    return *this;
  }

  /// The size of the picture in pixels.
  image_request& size(std::size_t width, std::size_t height) {
    width_ = width;
    height_ = height;
    return *this;
  }

  /// The number of sampling steps.
  image_request& steps(std::uint32_t count) {
    steps_ = count;
    return *this;
  }

  /// How strongly the prompt is followed: the scale of classifier-free guidance (Ho and Salimans, 2022), 1 for none.
  image_request& guidance(float scale) {
    guidance_ = scale;
    return *this;
  }

  /// The same seed gives the same picture.
  image_request& seed(std::uint64_t value) {
    seed_ = value;
    return *this;
  }

  /// A preview with every `n`-th step, none for 0.
  image_request& preview_every(std::uint32_t n) {
    preview_every_ = n;
    return *this;
  }

  const std::string& prompt() const noexcept { return prompt_; }                    ///< what to draw
  const std::string& negative_prompt() const noexcept { return negative_prompt_; }  ///< empty for none
  const std::optional<std::size_t>& width() const noexcept { return width_; }       ///< unset: the model's own
  const std::optional<std::size_t>& height() const noexcept { return height_; }     ///< unset: the model's own
  const std::optional<std::uint32_t>& steps() const noexcept { return steps_; }     ///< unset: the model's own
  const std::optional<float>& guidance() const noexcept { return guidance_; }       ///< unset: the model's own
  const std::optional<std::uint64_t>& seed() const noexcept { return seed_; }       ///< unset: a random one
  std::uint32_t preview_every() const noexcept { return preview_every_; }           ///< 0 for none

 private:
  std::string prompt_;
  std::string negative_prompt_;
  std::optional<std::size_t> width_, height_;
  std::optional<std::uint32_t> steps_;
  std::optional<float> guidance_;
  std::optional<std::uint64_t> seed_;
  std::uint32_t preview_every_ = 0;
};

/// Step `step` of `total` is done.
struct image_step {
  /// A step without preview.
  image_step(std::uint32_t done, std::uint32_t of) : step(done), total(of) {}

  std::uint32_t step;            ///< counted from 1
  std::uint32_t total;           ///< steps in all
  std::optional<image> preview;  ///< what the picture looks like so far
};

/// What drawing yields: steps, then the picture.
using image_event = std::variant<image_step, image>;

ROSTER_END_NAMESPACE
