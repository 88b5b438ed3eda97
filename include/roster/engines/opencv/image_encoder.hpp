#pragma once

#include <roster/call/embed_options.hpp>
#include <roster/call/embeddings.hpp>
#include <roster/call/image.hpp>
#include <roster/call/run_context.hpp>
#include <roster/engines/opencv/detail/embedding_network.hpp>
#include <roster/engines/opencv/detail/network.hpp>
#include <roster/engines/opencv/detail/onnx_file.hpp>
#include <roster/engines/opencv/image_encoder_options.hpp>
#include <roster/error.hpp>

#include <fmt/format.h>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv {

/// Image embedding with an ONNX network that OpenCV's `dnn` module runs on the CPU: an engine for `image_embedding`.
///
/// The network has one input of `N x 3 x height x width` floats, and an output of one vector for each image: `N x dimension`,
/// with any number of dimensions of 1 beside. Input size, batch size and dimension are read from it. A network that was
/// exported for one batch size is given batches of that size, filled up where images are missing.
///
/// The vector of an image does not depend on the others of a call. A network that leaves the batch open computes several images
/// at once if all its operators are known to allow that and if it gave different ones the same together as alone when it was
/// loaded; else one after the other.
///
/// OpenCV does not run every network. Its importer takes some otherwise than they are meant; the constructor changes what it
/// shows to it where that helps, and compares what the operators give with what ONNX says that they mean: those that go by
/// attributes, shapes or positions, but no convolutions, and on one made-up image. So it reads a network twice. Still, compare
/// an embedding with one that the network gave where it was trained. The importer trusts what it reads: load files that you
/// trust.
///
/// It computes a batch on several threads of its own, as many as the machine has, and takes one call at a time for that. The
/// number belongs to the process, so this class leaves it alone; a program that keeps several encoders busy may be faster
/// after `cv::setNumThreads(1)` in `main`.
///
/// **Thread safety**: one call at a time, on whatever thread; encoders do not share anything. Loading is not thread-safe in
/// OpenCV; constructors exclude each other, but not what else the program loads through OpenCV. While one runs, OpenCV prints
/// no errors and warnings, as they become exceptions; who sets its log level just then may find it set back.
///
///     roster::opencv::image_encoder_options options;
///     options.scale(1.0 / 255);
///     roster::opencv::image_encoder encoder("digit_encoder.onnx", options);
class image_encoder final {
 public:
  /// Reads a network that only needs colours from 0 to 1. Otherwise like the other constructor.
  explicit image_encoder(const std::filesystem::path& onnx) : image_encoder(onnx, image_encoder_options()) {}

  /// Reads a network and tries it out, to learn its dimension. Blocks, so call it where an engine is made: on a thread of the
  /// pool, or on the model's own.
  ///
  /// **Errors**: `bad_model`, naming the file, if it is missing, damaged or not ONNX, or if its inputs or outputs are others
  /// than above; `bad_model` too, naming OpenCV's version and the operator, if this OpenCV cannot run it or does not run it
  /// right; `invalid_argument` if the options do not fit it.
  image_encoder(const std::filesystem::path& onnx, image_encoder_options options)
      : image_encoder(detail::onnx_file(onnx), std::move(options)) {}

  /// Takes the network over. The other encoder can only be destroyed or assigned to.
  image_encoder(image_encoder&&) = default;

  /// Takes the network over. The other encoder can only be destroyed or assigned to.
  image_encoder& operator=(image_encoder&&) = default;

  image_encoder(const image_encoder&) = delete;
  image_encoder& operator=(const image_encoder&) = delete;
  ~image_encoder() = default;

  /// The length of the vectors.
  std::size_t dimension() const noexcept { return net_.dimension(); }

  /// A vector for each image, which may be of any size. Reports how many of them are done.
  ///
  /// **Cancellation**: `operation_aborted` before the next batch, when the context asks to stop.
  /// **Errors**: `invalid_input` for an image without pixels; `bad_output` if a vector holds NaN or infinity, if it is zero and
  /// should be normalised, or if OpenCV fails. The encoder remains usable.
  void run(std::span<const image> images, const embed_options&, embeddings& vectors, run_context& context) {
    for (std::size_t index = 0; index < images.size(); ++index)
      if (images[index].empty() || images[index].width() > max_side || images[index].height() > max_side)
        net_.fail(errc::invalid_input, fmt::format("image {} of {} is {} x {} pixels, allowed are 1 to {} a side", index + 1,
                                                   images.size(), images[index].width(), images[index].height(), max_side));
    net_.run(images.size(), "image", vectors, context, [&](std::size_t index, float* to) { write(images[index], to); });
  }

 private:
  static constexpr std::size_t max_side = 1U << 30;  // cv::Mat counts with int

  image_encoder(const detail::onnx_file& file, image_encoder_options options)
      : options_(std::move(options)), sizes_(input_sizes(file, options_)), net_(make_network(file)) {}

  static std::vector<std::size_t> input_sizes(const detail::onnx_file& file, const image_encoder_options& options) {
    const auto& input = file.only_input("image");
    auto sizes = file.shape(input, {0, 3, 0, 0}, "N x 3 x height x width");
    const auto choose = [&](std::size_t& of_network, std::size_t of_options) {
      if (of_network != 0 && of_options != 0 && of_network != of_options)
        file.fail(errc::invalid_argument, fmt::format("{}, the options ask for {} x {} pixels", detail::to_string(input),
                                                      options.input_width(), options.input_height()));
      if (of_network == 0 && of_options == 0)
        file.fail(errc::invalid_argument,
                  detail::to_string(input) + ", so image_encoder_options::input_size has to say which size");
      of_network = (std::max)(of_network, of_options);
    };
    choose(sizes[2], options.input_height());
    choose(sizes[3], options.input_width());
    return sizes;
  }

  detail::embedding_network make_network(const detail::onnx_file& file) const {
    auto output = file.output(options_.output(), "image_encoder_options::output says which is the embedding");
    return detail::embedding_network(file, std::move(output), sizes_, options_.max_batch(), options_.normalise());
  }

  void write(const image& from, float* to) const {
    const auto height = sizes_[2], width = sizes_[3];
    const cv::Mat pixels(static_cast<int>(from.height()), static_cast<int>(from.width()), CV_8UC3,
                         const_cast<std::uint8_t*>(from.pixels().data()));
    cv::Mat resized = pixels;
    if (from.width() != width || from.height() != height)
      cv::resize(pixels, resized, cv::Size(static_cast<int>(width), static_cast<int>(height)), 0, 0, interpolation());
    const auto area = width * height;
    for (std::size_t colour = 0; colour < 3; ++colour) {
      const auto mean = options_.mean()[colour];
      const auto scale = options_.scale()[colour];
      const auto* source = resized.ptr<std::uint8_t>() + colour;
      auto* plane = to + area * (options_.channels() == channel_order::rgb ? colour : 2 - colour);
      for (std::size_t pixel = 0; pixel < area; ++pixel)
        plane[pixel] = (static_cast<float>(source[pixel * 3]) - mean) * scale;
    }
  }

  int interpolation() const noexcept {
    switch (options_.resize()) {
      case resize_method::nearest:
        return cv::INTER_NEAREST;
      case resize_method::linear:
        return cv::INTER_LINEAR;
      case resize_method::cubic:
        return cv::INTER_CUBIC;
      case resize_method::area:
        return cv::INTER_AREA;
    }
    return cv::INTER_LINEAR;
  }

  image_encoder_options options_;
  std::vector<std::size_t> sizes_;  // of the network's input
  detail::embedding_network net_;
};

}  // namespace opencv

ROSTER_END_NAMESPACE
