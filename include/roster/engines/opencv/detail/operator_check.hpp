#pragma once

#include <roster/engines/opencv/detail/blob.hpp>
#include <roster/engines/opencv/detail/floats.hpp>
#include <roster/engines/opencv/detail/importer.hpp>
#include <roster/engines/opencv/detail/network_input.hpp>
#include <roster/engines/opencv/detail/onnx_constant.hpp>
#include <roster/engines/opencv/detail/onnx_file.hpp>
#include <roster/engines/opencv/detail/onnx_reference.hpp>
#include <roster/engines/opencv/detail/onnx_rewrite.hpp>
#include <roster/engines/opencv/detail/onnx_signature.hpp>
#include <roster/error.hpp>
#include <roster/version.hpp>

#include <fmt/format.h>
#include <opencv2/core.hpp>
#include <opencv2/core/utility.hpp>
#include <opencv2/dnn.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// Reads a network as OpenCV does, looks at what each operator makes of its inputs, and compares that with what
/// `onnx_reference` makes of them.
class operator_check {
 public:
  /// What two computations of the same may differ by, in proportion to the largest number.
  static constexpr double tolerance = 1e-3;

  struct outcome {
    std::string source;    // the file, as OpenCV has to read it
    onnx_constant output;  // for the trial's inputs; empty if it is no layer's, or holds no floats
  };

  /// Both have to outlive it.
  operator_check(const onnx_file& file, std::span<const network_input> inputs) : file_(file), inputs_(inputs) {}

  /// To be called once. Throws `bad_model` if an operator is not computed as ONNX means it, and what OpenCV throws.
  outcome run(const std::string& output) {
    auto computed = compute(output);
    changes_.more_outputs.clear();
    return {rewrite(), std::move(computed)};
  }

 private:
  using tensor = onnx_constant;

  std::string rewrite() const { return rewrite_onnx(file_.bytes(), file_.signature(), changes_); }

  /// What the operators gave. OpenCV has no result of those that its importer puts together to one; what `onnx_reference`
  /// makes of them stands for it.
  struct trial {
    std::unordered_map<std::string_view, cv::Mat> computed;
    std::unordered_map<std::string_view, tensor> plain;
  };

  /// The output of the network whose operators are all outputs, so that none is fused.
  tensor compute(const std::string& output) {
    const auto& signature = file_.signature();
    for (const auto& node : signature.nodes)
      if (is_misread(node, signature)) refuse(node);
    for (const auto& each : inputs_)
      changes_.inputs.push_back({each.name, each.sizes});
    for (const auto& node : signature.nodes)
      for (const auto made : node.outputs)
        if (!made.empty() && !signature.constants.contains(made) &&
            std::ranges::find(signature.outputs, made) == signature.outputs.end())
          changes_.more_outputs.push_back(made);
    auto net = read_net(rewrite());
    widen_constants(net, signature);
    if (!changes_.constants.empty()) net = read_net(rewrite());
    net.enableFusion(false);
    auto all = changes_.more_outputs;
    set_trial_inputs(net, inputs_);
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
    for (std::uint32_t number = 0; number < inputs_.size(); ++number)
      known.computed.emplace(inputs_[number].name, make_trial_blob(inputs_[number].sizes, number));
    for (const auto& node : signature.nodes)
      check(node, signature, known);
    if (net.getLayerId(output) < 0) return {};
    const auto result = net.forward(output);
    return result.type() == CV_32F ? read_blob(result) : tensor();
  }

  /// The sizes of what the operators make, as OpenCV sees them.
  std::unordered_map<std::string_view, std::vector<std::size_t>> learn_sizes(const cv::dnn::Net& net,
                                                                             const onnx_signature& signature) const {
    std::unordered_map<std::string_view, std::vector<std::size_t>> sizes;
    std::vector<cv::dnn::MatShape> input_shapes;
    for (const auto& declared : signature.inputs)
      for (const auto& each : inputs_)
        if (each.name == declared.name) {
          input_shapes.emplace_back(each.sizes.begin(), each.sizes.end());
          sizes.emplace(declared.name, each.sizes);
        }
    std::vector<int> layers;
    std::vector<std::vector<cv::dnn::MatShape>> taken, made;
    net.getLayersShapes(input_shapes, layers, taken, made);
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
        if (const auto narrow = read_onnx_constant(constant->second))
          if (auto wide = widen_onnx_constant(*narrow, other->second))
            changes_.constants.push_back({&node, place, std::move(*wide)});
      }
    }
  }

  static std::optional<tensor> find(std::string_view name, const onnx_signature& signature, const trial& known) {
    if (const auto found = signature.constants.find(name); found != signature.constants.end())
      return read_onnx_constant(found->second);
    if (const auto found = known.plain.find(name); found != known.plain.end()) return found->second;
    if (const auto found = known.computed.find(name); found != known.computed.end() && found->second.type() == CV_32F)
      return read_blob(found->second);
    return std::nullopt;
  }

  [[noreturn]] void refuse(const onnx_node& node) const {
    file_.fail(errc::bad_model,
               fmt::format("OpenCV {} computes the operator '{}' ({}) otherwise than ONNX means it", cv::getVersionString(),
                           node.outputs.empty() ? "" : node.outputs.front(), node.operation));
  }

  /// What must not even be tried, or what `onnx_reference` does not compute. `SAME_LOWER` of a convolution is `SAME_UPPER` for
  /// OpenCV. OpenCV 4.6 takes axes of `Squeeze` that count from the end for places before the beginning of its memory, and
  /// for `Slice` it may take another axis.
  static bool is_misread(const onnx_node& node, const onnx_signature& signature) {
    if (node.operation.starts_with("Conv")) return node.text("auto_pad", "NOTSET") == "SAME_LOWER";
    if (node.operation != "Squeeze" && node.operation != "Slice") return false;
    auto axes = node.integers("axes");
    const auto place = node.operation == "Squeeze" ? 1U : 3U;
    if (node.inputs.size() > place)
      if (const auto found = signature.constants.find(node.inputs[place]); found != signature.constants.end())
        if (const auto constant = read_onnx_constant(found->second))
          std::ranges::transform(constant->values, std::back_inserter(axes), onnx_index);
    return std::ranges::any_of(axes, [](std::int64_t axis) { return axis < 0; });
  }

  void check(const onnx_node& node, const onnx_signature& signature, trial& known) const {
    if (node.outputs.empty()) return;
    std::vector<std::optional<tensor>> inputs;
    for (const auto name : node.inputs)
      inputs.push_back(find(name, signature, known));
    std::vector<const tensor*> pointers;
    for (const auto& each : inputs)
      pointers.push_back(each ? &*each : nullptr);
    auto meant = onnx_reference(node, std::move(pointers), signature.operators_version).compute();
    if (!meant) return;
    const auto computed = find(node.outputs.front(), signature, known);
    if (!computed)
      known.plain.emplace(node.outputs.front(), std::move(*meant));
    else if (!agree(std::span<const double>(meant->values), std::span<const double>(computed->values), tolerance))
      refuse(node);
  }

  const onnx_file& file_;
  std::span<const network_input> inputs_;
  onnx_changes changes_;
};

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
