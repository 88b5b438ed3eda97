#pragma once

#include <roster/engines/opencv/detail/blob.hpp>
#include <roster/engines/opencv/detail/floats.hpp>
#include <roster/engines/opencv/detail/importer.hpp>
#include <roster/engines/opencv/detail/network_input.hpp>
#include <roster/engines/opencv/detail/onnx_constant.hpp>
#include <roster/engines/opencv/detail/onnx_file.hpp>
#include <roster/engines/opencv/detail/operator_check.hpp>
#include <roster/error.hpp>
#include <roster/version.hpp>

#include <fmt/format.h>
#include <opencv2/core.hpp>
#include <opencv2/core/utility.hpp>
#include <opencv2/dnn.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// A network that OpenCV runs on the CPU, as far as it computes what the file means.
///
/// OpenCV's importer takes some files otherwise than they are meant, without an error. So each is read twice: first for an
/// `operator_check`, and then as it will be used, when operators are fused. OpenCV 4.6 loses factors where it fuses a product
/// of two activations, a power or a normalisation by instance with what follows: where the result differs, nothing is fused.
class network {
 public:
  /// Reads the network, and calls `try_out(*this)` to learn more of it. Throws `bad_model` for whatever OpenCV throws, and
  /// where it computes an operator wrong.
  template <typename TryOut>
  network(const onnx_file& file, std::vector<network_input> inputs, const std::string& output, TryOut try_out)
      : file_(file.name()), inputs_(std::move(inputs)) {
    std::lock_guard lock(loading_);  // blocks: the thread that makes the engine
    const muted_log muted;
    try {
      auto checked = operator_check(file, inputs_).run(output);
      source_ = std::move(checked.source);
      reload();
      if (!checked.output.values.empty() && !fused_agrees(output, checked.output)) {
        fuses_ = false;
        reload();
        if (!agrees(output, checked.output))
          fail(errc::bad_model, fmt::format("OpenCV {} computes output '{}' in two ways", cv::getVersionString(), output));
      }
      try_out(*this);
      blamed_ = errc::bad_output;
      source_ = {};
    } catch (const error&) {
      throw;
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& failure) {
      fail(errc::bad_model, fmt::format("OpenCV {} cannot run it: {}", cv::getVersionString(), text_of(failure)));
    }
  }

  /// Reads the network anew, while it is tried out: a failure may leave OpenCV in any state.
  void reload() {
    net_ = std::make_unique<cv::dnn::Net>(read_net(source_));
    if (!fuses_) net_->enableFusion(false);
  }

  [[noreturn]] void fail(errc code, const std::string& reason) const { throw error(code, file_ + ": " + reason); }

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
    if (!are_finite({result.ptr<float>(), count})) fail(blamed_, fmt::format("NaN or infinity in output '{}'", output));
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

  bool agrees(const std::string& output, const onnx_constant& meant) {
    set_trial_inputs(*net_, inputs_);
    const auto result = net_->forward(output);
    return result.type() == CV_32F && agree(std::span<const double>(meant.values),
                                            std::span<const double>(read_blob(result).values), operator_check::tolerance);
  }

  bool fused_agrees(const std::string& output, const onnx_constant& meant) {
    try {
      return agrees(output, meant);
    } catch (const cv::Exception&) {  // OpenCV 4.6 throws for some operators that a convolution is fused with
      return false;
    }
  }

  inline static std::mutex loading_;  // OpenCV cannot load from several threads at once

  std::string file_;
  std::vector<network_input> inputs_;
  std::string source_;  // what OpenCV reads, while the network is tried out
  bool fuses_ = true;
  errc blamed_ = errc::bad_model;      // for a wrong output: the model, until it has been tried out
  std::unique_ptr<cv::dnn::Net> net_;  // never copied: copies share their state, and a move of a Net is a copy
};

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
