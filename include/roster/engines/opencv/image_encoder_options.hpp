#pragma once

#include <roster/engines/opencv/detail/floats.hpp>
#include <roster/error.hpp>
#include <roster/version.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <utility>

ROSTER_BEGIN_NAMESPACE

namespace opencv {

/// The order in which a network expects the three colours of a pixel.
enum class channel_order {
  rgb,  ///< red first: networks that were trained with PyTorch, mostly
  bgr   ///< blue first: networks that were trained with Caffe or OpenCV, mostly
};

/// How an image is brought to the size that a network expects. None of them smooths before it makes an image smaller, but
/// `area`.
enum class resize_method {
  nearest,  ///< the nearest pixel
  linear,   ///< between the four nearest pixels
  cubic,    ///< between the sixteen nearest pixels
  area      ///< the mean of the pixels that fall together; as `linear` where an image grows
};

/// What an `image_encoder` must know of its network that an ONNX file does not tell.
///
///     roster::opencv::image_encoder_options options;
///     options.input_size(224, 224).mean(123.7, 116.3, 103.5).scale(1 / 58.4, 1 / 57.1, 1 / 57.4);
class image_encoder_options {
 public:
  /// The largest side of an input, and the largest batch.
  static constexpr std::size_t limit = 65'535;

  /// Input size from the network, colours from 0 to 1, red first, normalised vectors.
  image_encoder_options() {}

  /// The size to which images are resized, whatever their own is. Necessary where the network leaves it open.
  ///
  /// **Errors**: `invalid_argument` for 0, and beyond `limit`.
  image_encoder_options& input_size(std::size_t width, std::size_t height) {
    if (width == 0 || width > limit || height == 0 || height > limit)
      throw error(errc::invalid_argument, "image_encoder_options: input size " + std::to_string(width) + " x " +
                                              std::to_string(height) + " is not between 1 and " + std::to_string(limit));
    width_ = width;
    height_ = height;
    return *this;
  }

  /// What is subtracted from red, green and blue, which run from 0 to 255, before they are scaled. 0 unless set.
  ///
  /// **Errors**: `invalid_argument` for NaN and infinity.
  image_encoder_options& mean(double red, double green, double blue) {
    mean_ = finite("mean", red, green, blue);
    return *this;
  }

  /// What red, green and blue are multiplied with after the mean is subtracted. 1/255 unless set.
  ///
  /// **Errors**: `invalid_argument` for NaN and infinity.
  image_encoder_options& scale(double red, double green, double blue) {
    scale_ = finite("scale", red, green, blue);
    return *this;
  }

  /// The same for all colours.
  ///
  /// **Errors**: `invalid_argument` for NaN and infinity.
  image_encoder_options& scale(double all) { return scale(all, all, all); }

  /// The order in which the network expects the colours. Mean and scale are given as red, green, blue in any case.
  image_encoder_options& channels(channel_order order) {
    channels_ = order;
    return *this;
  }

  /// Whether vectors are divided by their Euclidean length. They are unless this says no.
  image_encoder_options& normalise(bool on) {
    normalise_ = on;
    return *this;
  }

  /// The output that is the embedding, of a network with more than one, or the name that OpenCV gives to a layer inside.
  image_encoder_options& output(std::string layer) {
    output_ = std::move(layer);
    return *this;
  }

  /// How images are resized. `linear` unless set.
  image_encoder_options& resize(resize_method method) {
    resize_ = method;
    return *this;
  }

  /// The most images that go through the network at once; between two batches a call looks whether it should stop. 64 unless
  /// set. Without meaning for a network that was exported for one batch size, or that can only be given one image at a time.
  ///
  /// **Errors**: `invalid_argument` for 0, and beyond `limit`.
  image_encoder_options& max_batch(std::size_t images) {
    if (images == 0 || images > limit)
      throw error(errc::invalid_argument, "image_encoder_options: a batch of " + std::to_string(images) +
                                              " is not between 1 and " + std::to_string(limit));
    max_batch_ = images;
    return *this;
  }

  /// The width of the input; 0 if that is left to the network.
  std::size_t input_width() const noexcept { return width_; }

  /// The height of the input; 0 if that is left to the network.
  std::size_t input_height() const noexcept { return height_; }

  /// What is subtracted from red, green and blue.
  const std::array<float, 3>& mean() const noexcept { return mean_; }

  /// What red, green and blue are then multiplied with.
  const std::array<float, 3>& scale() const noexcept { return scale_; }

  /// The order in which the network expects the colours.
  channel_order channels() const noexcept { return channels_; }

  /// Whether vectors are divided by their Euclidean length.
  bool normalise() const noexcept { return normalise_; }

  /// The layer that is the embedding; empty for the network's only output.
  const std::string& output() const noexcept { return output_; }

  /// How images are resized.
  resize_method resize() const noexcept { return resize_; }

  /// The most images that go through the network at once.
  std::size_t max_batch() const noexcept { return max_batch_; }

 private:
  static std::array<float, 3> finite(const char* option, double red, double green, double blue) {
    const std::array<float, 3> values{static_cast<float>(red), static_cast<float>(green), static_cast<float>(blue)};
    for (const auto value : values)
      if (!detail::is_finite(value))
        throw error(errc::invalid_argument, std::string("image_encoder_options: no finite ") + option);
    return values;
  }

  std::size_t width_ = 0;
  std::size_t height_ = 0;
  std::array<float, 3> mean_{0, 0, 0};
  std::array<float, 3> scale_{1.0F / 255, 1.0F / 255, 1.0F / 255};
  channel_order channels_ = channel_order::rgb;
  bool normalise_ = true;
  std::string output_;
  resize_method resize_ = resize_method::linear;
  std::size_t max_batch_ = 64;
};

}  // namespace opencv

ROSTER_END_NAMESPACE
