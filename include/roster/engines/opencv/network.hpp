#pragma once

#include <roster/engines/opencv/floats.hpp>
#include <roster/engines/opencv/onnx_reference.hpp>
#include <roster/engines/opencv/onnx_rewrite.hpp>
#include <roster/engines/opencv/onnx_signature.hpp>
#include <roster/error.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <opencv2/core.hpp>
#include <opencv2/core/utility.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/dnn.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
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

/// Fills an input with numbers from 0 to 1, others for each `number`, to try a network out with.
inline void fill_for_trial(std::span<float> values, std::uint32_t number) {
  std::uint32_t state = 2'654'435'761U * (number + 1);
  const auto least = 0.1F * static_cast<float>(number % 4), range = 0.3F + 0.2F * static_cast<float>(number % 3);
  for (auto& value : values) {
    state = state * 1'664'525U + 1'013'904'223U;
    value = least + range * static_cast<float>(state >> 8U) / static_cast<float>(1U << 24U);
  }
}

/// Floats of these sizes, all 0.
inline cv::Mat make_blob(const std::vector<std::size_t>& sizes) {
  std::vector<int> axes;
  for (const auto size : sizes)
    axes.push_back(static_cast<int>(size));
  return cv::Mat(static_cast<int>(axes.size()), axes.data(), CV_32F, cv::Scalar(0));
}

/// A network that OpenCV runs on the CPU, as far as it computes what the file means.
///
/// OpenCV's importer takes some files otherwise than they are meant, without a word. So each is read twice: first to look at
/// what each operator makes of its inputs, and to compare that with the plain meaning of the operator (`onnx_reference`); and
/// then as it will be used, when operators are fused. OpenCV 4.6 loses factors where it fuses a product of two activations, a
/// power or a normalisation by instance with what follows: where the result differs, nothing is fused.
class network {
 public:
  /// An input, and the sizes that it will have: the file may leave them open, which OpenCV does not understand.
  struct input {
    std::string name;
    std::vector<std::size_t> sizes;
  };

  /// Reads the network, and calls `try_out(*this)` to learn more of it. Throws `bad_model` for whatever OpenCV throws, and
  /// where it computes an operator wrong.
  template <typename TryOut>
  network(const onnx_file& file, std::vector<input> inputs, const std::string& output, TryOut try_out)
      : file_(file.name()), inputs_(std::move(inputs)) {
    std::lock_guard lock(loading_);  // blocks: the thread that makes the engine
    const muted_log muted;
    try {
      const auto meant = compute_operators(file, output);
      changes_.more_outputs.clear();
      source_ = rewrite(file);
      changes_ = {};
      reload();
      if (!meant.values.empty() && !fused_agrees(output, meant)) {
        fuses_ = false;
        reload();
        if (!agrees(output, meant))
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

  /// Reads the network anew, while it is tried out: what a failure leaves behind in OpenCV is nobody's business.
  void reload() {
    net_ = std::make_unique<cv::dnn::Net>(read_net(source_));
    if (!fuses_) net_->enableFusion(false);
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
  using tensor = roster::detail::onnx_constant;

  static std::string text_of(const std::exception& failure) {
    const std::string_view text = failure.what();
    return std::string(text.substr(0, text.find_last_not_of("\n >") + 1));
  }

  static cv::dnn::Net read_net(const std::string& bytes) {
    auto net = cv::dnn::readNetFromONNX(bytes.data(), bytes.size());
    net.setPreferableBackend(cv::dnn::DNN_BACKEND_OPENCV);
    net.setPreferableTarget(cv::dnn::DNN_TARGET_CPU);
    return net;
  }

  std::string rewrite(const onnx_file& file) const {
    return roster::detail::rewrite_onnx(file.bytes(), file.signature(), changes_);
  }

  /// The sizes of what the operators make, as OpenCV sees them.
  std::unordered_map<std::string_view, std::vector<std::size_t>> learn_sizes(const cv::dnn::Net& net,
                                                                             const onnx_signature& signature) const {
    std::unordered_map<std::string_view, std::vector<std::size_t>> sizes;
    std::vector<cv::dnn::MatShape> given;
    for (const auto& declared : signature.inputs)
      for (const auto& each : inputs_)
        if (each.name == declared.name) {
          given.emplace_back(each.sizes.begin(), each.sizes.end());
          sizes.emplace(declared.name, each.sizes);
        }
    std::vector<int> layers;
    std::vector<std::vector<cv::dnn::MatShape>> taken, made;
    net.getLayersShapes(given, layers, taken, made);
    std::unordered_map<int, std::size_t> places;
    for (std::size_t place = 0; place < layers.size(); ++place)
      places.emplace(layers[place], place);
    for (const auto name : changes_.more_outputs)
      if (const auto place = places.find(net.getLayerId(std::string(name)));
          place != places.end() && !made[place->second].empty())
        sizes.emplace(name, std::vector<std::size_t>(made[place->second][0].begin(), made[place->second][0].end()));
    return sizes;
  }

  /// Repeats constants that OpenCV would take otherwise: see `widen_onnx_constant`.
  void widen_constants(const cv::dnn::Net& net, const onnx_signature& signature) {
    const auto sizes = learn_sizes(net, signature);
    for (const auto& node : signature.nodes) {
      if (node.inputs.size() != 2) continue;
      const bool adds = node.operation == "Add" || node.operation == "Sub";
      for (std::size_t place = 0; place < 2; ++place) {
        const auto constant = signature.constants.find(node.inputs[place]);
        const auto other = sizes.find(node.inputs[1 - place]);
        const bool fits = adds || node.operation == "Mul" || (node.operation == "Div" && place == 1);
        if (!fits || constant == signature.constants.end() || other == sizes.end()) continue;
        if (const auto narrow = roster::detail::read_onnx_constant(constant->second))
          if (auto wide = roster::detail::widen_onnx_constant(*narrow, other->second))
            changes_.constants.push_back({&node, place, std::move(*wide)});
      }
    }
  }

  void set_trial_inputs(cv::dnn::Net& net) const {
    for (std::uint32_t number = 0; number < inputs_.size(); ++number) {
      auto blob = make_blob(inputs_[number].sizes);
      fill_for_trial({blob.ptr<float>(), blob.total()}, number);
      net.setInput(blob, inputs_[number].name);
    }
  }

  /// The output of the network whose operators are all outputs, so that none is fused. Throws `bad_model` if one of them is not
  /// computed as ONNX means it.
  tensor compute_operators(const onnx_file& file, const std::string& output) {
    const auto& signature = file.signature();
    for (const auto& node : signature.nodes)
      if (is_misread(node, signature)) refuse(node);
    for (const auto& each : inputs_)
      changes_.inputs.push_back({each.name, each.sizes});
    for (const auto& node : signature.nodes)
      for (const auto made : node.outputs)
        if (!made.empty() && !signature.constants.contains(made) &&
            std::ranges::find(signature.outputs, made) == signature.outputs.end())
          changes_.more_outputs.push_back(made);
    auto net = read_net(rewrite(file));
    widen_constants(net, signature);
    if (!changes_.constants.empty()) net = read_net(rewrite(file));
    net.enableFusion(false);
    auto all = changes_.more_outputs;
    set_trial_inputs(net);
    all.insert(all.end(), signature.outputs.begin(), signature.outputs.end());
    std::vector<cv::String> names;
    for (const auto name : all)
      if (net.getLayerId(std::string(name)) >= 0)
        names.emplace_back(name);  // the others are constants, or part of larger layers
    std::vector<cv::Mat> results;
    net.forward(results, names);

    trial known;
    for (std::size_t i = 0; i < names.size(); ++i)
      known.computed.emplace(names[i], results[i]);
    for (std::uint32_t number = 0; number < inputs_.size(); ++number) {
      auto blob = make_blob(inputs_[number].sizes);
      fill_for_trial({blob.ptr<float>(), blob.total()}, number);
      known.computed.emplace(inputs_[number].name, blob);
    }
    for (const auto& node : signature.nodes)
      check(node, signature, known);
    if (net.getLayerId(output) < 0) return {};
    const auto result = net.forward(output);
    return result.type() == CV_32F ? read(result) : tensor();
  }

  /// What the trial's operators gave. Those that OpenCV's importer puts together to one, and so has no result of, are computed
  /// here, if they can be.
  struct trial {
    std::unordered_map<std::string_view, cv::Mat> computed;
    std::unordered_map<std::string_view, tensor> plain;
  };

  static tensor read(const cv::Mat& blob) {
    const auto whole = blob.isContinuous() ? blob : blob.clone();
    const std::span<const float> floats(whole.ptr<float>(), whole.total());
    return {{whole.size.p, whole.size.p + whole.dims}, {floats.begin(), floats.end()}};
  }

  static std::optional<tensor> find(std::string_view name, const onnx_signature& signature, const trial& known) {
    if (const auto found = signature.constants.find(name); found != signature.constants.end())
      return roster::detail::read_onnx_constant(found->second);
    if (const auto found = known.plain.find(name); found != known.plain.end()) return found->second;
    if (const auto found = known.computed.find(name); found != known.computed.end() && found->second.type() == CV_32F)
      return read(found->second);
    return std::nullopt;
  }

  [[noreturn]] void refuse(const roster::detail::onnx_node& node) const {
    fail(errc::bad_model,
         fmt::format("OpenCV {} computes the operator '{}' ({}) otherwise than ONNX means it", cv::getVersionString(),
                     node.outputs.empty() ? "" : node.outputs.front(), node.operation));
  }

  /// What must not even be tried, or what `onnx_reference` does not compute. `SAME_LOWER` of a convolution is `SAME_UPPER` for
  /// OpenCV. OpenCV 4.6 takes axes of `Squeeze` that count from the end for places before the beginning of its memory, and
  /// slices along them now one axis and now another.
  static bool is_misread(const roster::detail::onnx_node& node, const onnx_signature& signature) {
    if (node.operation.starts_with("Conv")) return node.text("auto_pad", "NOTSET") == "SAME_LOWER";
    if (node.operation != "Squeeze" && node.operation != "Slice") return false;
    auto axes = node.integers("axes");
    const auto place = node.operation == "Squeeze" ? 1U : 3U;
    if (node.inputs.size() > place)
      if (const auto found = signature.constants.find(node.inputs[place]); found != signature.constants.end())
        if (const auto constant = roster::detail::read_onnx_constant(found->second))
          std::ranges::transform(constant->values, std::back_inserter(axes), roster::detail::onnx_index);
    return std::ranges::any_of(axes, [](std::int64_t axis) { return axis < 0; });
  }

  void check(const roster::detail::onnx_node& node, const onnx_signature& signature, trial& known) const {
    if (node.outputs.empty()) return;
    std::vector<std::optional<tensor>> inputs;
    for (const auto name : node.inputs)
      inputs.push_back(find(name, signature, known));
    std::vector<const tensor*> given;
    for (const auto& each : inputs)
      given.push_back(each ? &*each : nullptr);
    auto meant = roster::detail::onnx_reference(node, std::move(given), signature.operators_version).compute();
    if (!meant) return;
    const auto computed = find(node.outputs.front(), signature, known);
    if (!computed)
      known.plain.emplace(node.outputs.front(), std::move(*meant));
    else if (!agree(std::span<const double>(meant->values), std::span<const double>(computed->values), tolerance))
      refuse(node);
  }

  bool agrees(const std::string& output, const tensor& meant) {
    set_trial_inputs(*net_);
    const auto result = net_->forward(output);
    return result.type() == CV_32F &&
           agree(std::span<const double>(meant.values), std::span<const double>(read(result).values), tolerance);
  }

  bool fused_agrees(const std::string& output, const tensor& meant) {
    try {
      return agrees(output, meant);
    } catch (const cv::Exception&) {  // OpenCV 4.6: a convolution does not know all that it may be fused with
      return false;
    }
  }

  static constexpr double tolerance = 1e-3;
  inline static std::mutex loading_;  // OpenCV cannot load from several threads at once, whatever the networks are for

  std::string file_;
  std::vector<input> inputs_;
  std::string source_;  // what OpenCV reads, while the network is tried out
  roster::detail::onnx_changes changes_;
  bool fuses_ = true;
  errc blamed_ = errc::bad_model;      // for a wrong output: the model, until it has been tried out
  std::unique_ptr<cv::dnn::Net> net_;  // never copied: copies share their state, and a move of a Net is a copy
};

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
