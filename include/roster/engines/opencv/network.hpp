#pragma once

#include <roster/engines/opencv/onnx_signature.hpp>
#include <roster/error.hpp>

#include <fmt/format.h>
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/dnn.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

using roster::detail::onnx_signature;

/// `1 x 3 x ?`, where 0 stands for a size that is left open.
template <typename Size>
std::string describe_shape(std::span<const Size> sizes) {
  std::string text;
  for (const auto size : sizes)
    text += (text.empty() ? "" : " x ") + (size == 0 ? "?" : std::to_string(size));
  return text.empty() ? "a scalar" : text;
}

inline std::string describe(const onnx_signature::tensor& input) {
  return fmt::format("input '{}' is {}", input.name, describe_shape(std::span<const std::uint64_t>(input.shape)));
}

/// An ONNX file that is complete, and what it says of its network.
class onnx_file {
 public:
  /// Throws `bad_model`.
  explicit onnx_file(const std::filesystem::path& path) : name_(path.string()), bytes_(read(path)) {
    auto signature = roster::detail::read_onnx_signature(bytes_);
    if (!signature) fail(errc::bad_model, "not an ONNX file, or cut off");
    if (signature->missing)
      fail(errc::bad_model, fmt::format("damaged: it uses '{}', but does not have it", *signature->missing));
    if (signature->has_short_weights) fail(errc::bad_model, "damaged: some of its weights do not have the size of their shape");
    if (signature->has_external_weights) fail(errc::bad_model, "its weights are in other files, which OpenCV cannot read");
    signature_ = std::move(*signature);
  }
  onnx_file(const onnx_file&) = delete;  // the signature refers to the bytes
  onnx_file& operator=(const onnx_file&) = delete;

  const std::string& name() const noexcept { return name_; }
  const std::string& bytes() const noexcept { return bytes_; }
  const onnx_signature& signature() const noexcept { return signature_; }

  [[noreturn]] void fail(errc what, const std::string& why) const { throw error(what, name_ + ": " + why); }

  /// The input of a network that has no other. `expected` says what it should be.
  const onnx_signature::tensor& only_input(std::string_view expected) const {
    if (signature_.inputs.size() != 1)
      fail(errc::bad_model, fmt::format("{} inputs, expected one {}", signature_.inputs.size(), expected));
    return signature_.inputs.front();
  }

  /// An input of a network that has several.
  const onnx_signature::tensor& input(std::string_view called) const {
    for (const auto& each : signature_.inputs)
      if (each.name == called) return each;
    fail(errc::bad_model, fmt::format("no input '{}'", called));
  }

  /// `chosen`, or the output of a network that has no other if that is empty. `option` says how to choose.
  std::string output(const std::string& chosen, std::string_view option) const {
    if (!chosen.empty()) return chosen;
    if (signature_.outputs.size() != 1)
      fail(errc::bad_model, fmt::format("{} outputs ({}), expected one; {}", signature_.outputs.size(),
                                        fmt::join(signature_.outputs, ", "), option));
    return std::string(signature_.outputs.front());
  }

  /// The sizes of an input, which must be as `expected` where that is not 0. An input without a shape may be of any. Larger
  /// ones than could sensibly be computed do not fit either.
  std::vector<std::size_t> shape(const onnx_signature::tensor& input, std::initializer_list<std::size_t> expected,
                                 std::string_view described) const {
    std::uint64_t room = 1U << 28U;  // values of an input: 1 GiB
    std::vector<std::size_t> sizes(expected);
    if (!input.has_shape) return sizes;
    bool fits = input.shape.size() == sizes.size();
    for (std::size_t axis = 0; fits && axis < sizes.size(); ++axis) {
      const auto given = input.shape[axis];
      fits = given <= room && (given == 0 || sizes[axis] == 0 || given == sizes[axis]);
      if (sizes[axis] == 0) sizes[axis] = static_cast<std::size_t>(given);
      if (sizes[axis] != 0) room /= sizes[axis];
    }
    if (!fits) fail(errc::bad_model, fmt::format("{}, expected {}", describe(input), described));
    return sizes;
  }

 private:
  std::string read(const std::filesystem::path& path) const {
    std::error_code failure;
    const auto status = std::filesystem::status(path, failure);
    if (!std::filesystem::exists(status)) fail(errc::bad_model, failure ? failure.message() : "no such file");
    if (!std::filesystem::is_regular_file(status)) fail(errc::bad_model, "not a regular file");
    const auto size = std::filesystem::file_size(path, failure);
    if (failure) fail(errc::bad_model, failure.message());
    std::string bytes(static_cast<std::size_t>(size), '\0');
    std::ifstream file(path, std::ios::binary);  // blocks: the thread that makes the engine
    if (!file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) fail(errc::bad_model, "cannot be read");
    return bytes;
  }

  std::string name_;
  std::string bytes_;
  onnx_signature signature_;
};

/// What the log has to say goes into the exceptions. A program that asked for more than warnings is looking for something.
class muted_log {
 public:
  muted_log() {
    if (mutes_) cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
  }
  muted_log(const muted_log&) = delete;
  muted_log& operator=(const muted_log&) = delete;
  ~muted_log() {
    if (mutes_) cv::utils::logging::setLogLevel(before_);
  }

 private:
  cv::utils::logging::LogLevel before_ = cv::utils::logging::getLogLevel();
  bool mutes_ = before_ <= cv::utils::logging::LOG_LEVEL_WARNING;
};

/// A network that OpenCV runs on the CPU.
class network {
 public:
  /// Reads the network, and calls `try_out(*this)` to learn more of it. Throws `bad_model` for whatever OpenCV throws.
  template <typename TryOut>
  network(const onnx_file& file, TryOut try_out) : file_(file.name()) {
    std::lock_guard lock(loading_);  // blocks: the thread that makes the engine
    const muted_log muted;
    try {
      net_ = std::make_unique<cv::dnn::Net>(cv::dnn::readNetFromONNX(file.bytes().data(), file.bytes().size()));
      net_->setPreferableBackend(cv::dnn::DNN_BACKEND_OPENCV);
      net_->setPreferableTarget(cv::dnn::DNN_TARGET_CPU);
      // OpenCV 4.6 fuses a product of two activations with the constant factor behind it, and loses the factor.
      if (file.signature().has_matrix_product) net_->enableFusion(false);
      try_out(*this);
      blamed_ = errc::bad_output;
    } catch (const error&) {
      throw;
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& failure) {
      fail(errc::bad_model, text_of(failure));
    }
  }

  [[noreturn]] void fail(errc what, const std::string& why) const { throw error(what, file_ + ": " + why); }

  bool has_layer(const std::string& called) const { return net_->getLayerId(called) >= 0; }

  /// Copies a blob in.
  void set_input(const cv::Mat& blob, const std::string& called = {}) { net_->setInput(blob, called); }

  /// What the network makes of its inputs: contiguous floats, in memory that may belong to the network.
  cv::Mat forward(const std::string& output) {
    auto result = net_->forward(output);
    if (result.type() != CV_32F) fail(blamed_, fmt::format("output '{}' holds no floats", output));
    return result.isContinuous() ? result : result.clone();
  }

  /// `forward`, whose result must have so many values, all of them finite. Throws `bad_output`, or `bad_model` while tried out.
  cv::Mat forward(const std::string& output, std::size_t count) {
    auto result = forward(output);
    if (result.total() != count)
      fail(blamed_, fmt::format("output '{}' has {} values, expected {}", output, result.total(), count));
    if (!std::ranges::all_of(std::span(result.ptr<float>(), count), [](float value) { return std::isfinite(value); }))
      fail(blamed_, fmt::format("NaN or infinity in output '{}'", output));
    return result;
  }

  /// `compute()`, and `bad_output` for what OpenCV throws.
  template <typename Compute>
  decltype(auto) guard(Compute compute) const {
    try {
      return compute();
    } catch (const cv::Exception& failure) {
      fail(errc::bad_output, text_of(failure));
    }
  }

 private:
  static std::string text_of(const std::exception& failure) {
    const std::string_view text = failure.what();
    return std::string(text.substr(0, text.find_last_not_of("\n >") + 1));
  }

  inline static std::mutex loading_;  // OpenCV cannot load from several threads at once, whatever the networks are for

  std::string file_;
  errc blamed_ = errc::bad_model;      // for a wrong output: the model, until it has been tried out
  std::unique_ptr<cv::dnn::Net> net_;  // never copied: copies share their state, and a move of a Net is a copy
};

/// Floats of these sizes, all 0.
inline cv::Mat make_blob(const std::vector<std::size_t>& sizes) {
  std::vector<int> axes;
  for (const auto size : sizes)
    axes.push_back(static_cast<int>(size));
  return cv::Mat(static_cast<int>(axes.size()), axes.data(), CV_32F, cv::Scalar(0));
}

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
