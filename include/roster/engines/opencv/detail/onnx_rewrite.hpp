#pragma once

#include <roster/engines/opencv/detail/onnx_constant.hpp>
#include <roster/engines/opencv/detail/onnx_signature.hpp>
#include <roster/engines/opencv/detail/wire_format.hpp>
#include <roster/version.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// What to change in a file, so that OpenCV computes what it means.
struct onnx_changes {
  /// Sizes of an input.
  struct input {
    std::string_view name;
    std::vector<std::size_t> sizes;
  };

  /// Values that an operator has as one of its inputs instead of others.
  struct constant {
    const onnx_node* node;
    std::size_t input;
    onnx_constant values;
  };

  std::vector<input> inputs;
  std::vector<std::string_view> more_outputs;
  std::vector<constant> constants;
};

/// `constant`, repeated for each item of `sizes` but the first axis, if it is neither one number nor one for each channel.
/// OpenCV 4.6 takes what it adds to or multiplies a tensor with to be one of these, or to be as large as the tensor without its
/// batch.
inline std::optional<onnx_constant> widen_onnx_constant(const onnx_constant& constant, const std::vector<std::size_t>& sizes) {
  const auto rank = constant.sizes.size();
  if (constant.values.size() <= 1 || sizes.size() < 2 || rank > sizes.size()) return std::nullopt;
  const auto missing = sizes.size() - rank;
  bool is_for_channels = true;
  std::size_t count = 1;
  for (std::size_t axis = 0; axis < sizes.size(); ++axis) {
    const auto size = axis < missing ? 1 : constant.sizes[axis - missing];
    if (size != 1 && (axis == 0 || size != sizes[axis])) return std::nullopt;
    is_for_channels &= size == 1 || axis == 1;
    if (axis > 0) count *= sizes[axis];
  }
  constexpr std::size_t most = 1U << 26U;
  if (is_for_channels || count > most) return std::nullopt;
  onnx_constant wide{{sizes.begin() + 1, sizes.end()}, {}};
  for (std::size_t index = 0; index < count; ++index) {
    std::size_t rest = index, from = 0, stride = 1;
    for (auto axis = sizes.size(); axis-- > (std::max<std::size_t>)(missing, 1); rest /= sizes[axis]) {
      const auto size = constant.sizes[axis - missing];
      if (size != 1) from += rest % sizes[axis] * stride;
      stride *= size;
    }
    wide.values.push_back(constant.values[from]);
  }
  return wide;
}

/// Writes an operator as OpenCV 4.6 understands it: it expects attributes where newer ONNX has inputs, and has other defaults.
/// Nothing if the operator needs no change.
///
///  * `Clip`, `Split`, `ReduceSum` and `Squeeze` with a second input: not imported (`Split`: into equal parts, silently).
///  * The other reductions with a second input: over all axes, silently.
///  * `Gemm` without `transB`: with it, silently. `Softmax` without `axis`: as before version 13, silently.
class onnx_rephrasing {
 public:
  onnx_rephrasing(const onnx_node& node, const onnx_signature& signature) : node_(node), signature_(signature) {}

  std::optional<std::string> rephrase() {
    if (!node_.domain.empty() && node_.domain != "ai.onnx") return std::nullopt;
    const auto& operation = node_.operation;
    bool changes = false;
    if (operation == "Gemm" && node_.find("transB") == nullptr) {
      add("transB", std::vector<std::int64_t>{0}, false);
      changes = true;
    } else if ((operation == "Softmax" || operation == "LogSoftmax") && node_.find("axis") == nullptr &&
               signature_.operators_version >= 13) {
      add("axis", std::vector<std::int64_t>{-1}, false);
      changes = true;
    } else if (operation == "Clip" && node_.inputs.size() > 1) {
      changes = add_number("min", 1) && add_number("max", 2);
      kept_inputs_ = 1;
    } else if (node_.inputs.size() == 2 && !node_.inputs[1].empty()) {
      if (operation == "Split") changes = add_integers("split");
      if (operation == "Squeeze" || (operation.starts_with("Reduce") && node_.integer("noop_with_empty_axes", 0) == 0))
        changes = add_integers("axes");
      kept_inputs_ = 1;
    }
    return changes ? std::optional(write()) : std::nullopt;
  }

 private:
  bool add_number(std::string_view name, std::size_t input) {
    if (node_.inputs.size() <= input || node_.inputs[input].empty()) return true;
    const auto constant = constant_at(input);
    if (!constant || constant->values.size() != 1) return false;
    wire_writer attribute;
    attribute.write(1, name);
    attribute.write(2, static_cast<float>(constant->values.front()));
    attribute.write(20, std::uint64_t{1});
    added_.push_back(attribute.message());
    return true;
  }

  bool add_integers(std::string_view name) {
    const auto constant = constant_at(1);
    if (!constant || constant->values.empty()) return false;
    std::vector<std::int64_t> integers;
    std::ranges::transform(constant->values, std::back_inserter(integers), onnx_index);
    add(name, integers, true);
    return true;
  }

  void add(std::string_view name, const std::vector<std::int64_t>& integers, bool is_list) {
    wire_writer attribute;
    attribute.write(1, name);
    for (const auto each : integers)
      attribute.write(is_list ? 8U : 3U, static_cast<std::uint64_t>(each));
    attribute.write(20, std::uint64_t{is_list ? 7U : 2U});
    added_.push_back(attribute.message());
  }

  std::optional<onnx_constant> constant_at(std::size_t input) const {
    const auto found = signature_.constants.find(node_.inputs[input]);
    return found == signature_.constants.end() ? std::nullopt : read_onnx_constant(found->second);
  }

  std::string write() const {
    wire_writer node;
    std::size_t inputs = 0;
    for_each_field(node_.message, [&](const auto& field) {
      if (field.number != 1 || inputs++ < kept_inputs_) node.copy(field);
      return true;
    });
    for (const auto& attribute : added_)
      node.write(5, attribute);
    return node.message();
  }

  const onnx_node& node_;
  const onnx_signature& signature_;
  std::size_t kept_inputs_ = static_cast<std::size_t>(-1);
  std::vector<std::string> added_;
};

/// The padded average pools of a network: do they count what is padded?
inline std::pair<bool, bool> onnx_padded_averages(const onnx_signature& signature) {
  std::pair<bool, bool> counted_and_not{false, false};
  for (const auto& node : signature.nodes) {
    if (node.operation != "AveragePool") continue;
    const auto pads = node.integers("pads");
    const bool is_padded = std::ranges::any_of(pads, [](std::int64_t pad) { return pad != 0; }) ||
                           node.text("auto_pad", "NOTSET").starts_with("SAME") || node.integer("ceil_mode", 0) != 0;
    if (is_padded) (node.integer("count_include_pad", 0) != 0 ? counted_and_not.first : counted_and_not.second) = true;
  }
  return counted_and_not;
}

/// The name of an input or output of floats, and its sizes.
inline std::string describe_onnx_tensor(std::string_view name, std::span<const std::size_t> sizes) {
  wire_writer shape, tensor, type, info;
  for (const auto size : sizes) {
    wire_writer dimension;
    dimension.write(1, std::uint64_t{size});
    shape.write(1, dimension.message());
  }
  tensor.write(1, std::uint64_t{1});
  tensor.write(2, shape.message());
  type.write(1, tensor.message());
  info.write(1, name);
  info.write(2, type.message());
  return info.message();
}

/// An initializer of floats.
inline std::string describe_onnx_constant(std::string_view name, const onnx_constant& constant) {
  wire_writer tensor, floats;
  for (const auto size : constant.sizes)
    tensor.write(1, std::uint64_t{size});
  tensor.write(2, std::uint64_t{1});
  tensor.write(8, name);
  for (const auto value : constant.values)
    floats.append(static_cast<float>(value));
  tensor.write(9, floats.message());
  return tensor.message();
}

/// An operator with an input of another name.
inline std::string rename_onnx_input(std::string_view node, std::size_t input, std::string_view name) {
  wire_writer out;
  std::size_t inputs = 0;
  for_each_field(node, [&](const auto& field) {
    if (field.number == 1 && inputs++ == input)
      out.write(1, name);
    else
      out.copy(field);
    return true;
  });
  return out.message();
}

inline std::string rewrite_onnx_graph(std::string_view graph, const onnx_signature& signature, const onnx_changes& changes) {
  wire_writer out;
  std::size_t nodes = 0;
  const auto name_of = [](std::size_t index) { return "roster/constant_" + std::to_string(index); };
  for_each_field(graph, [&](const auto& part) {
    if (part.number == 1) {
      const auto& node = signature.nodes[nodes++];
      const auto changed = std::ranges::find(changes.constants, &node, &onnx_changes::constant::node);
      if (changed != changes.constants.end()) {
        const auto index = static_cast<std::size_t>(changed - changes.constants.begin());
        out.write(1, rename_onnx_input(node.message, changed->input, name_of(index)));
        return true;
      }
      if (const auto rephrased = onnx_rephrasing(node, signature).rephrase()) {
        out.write(1, *rephrased);
        return true;
      }
    }
    if (part.number == 11) {
      onnx_signature::tensor input;
      read_onnx_tensor(part.payload, input);
      const auto change = std::ranges::find(changes.inputs, input.name, &onnx_changes::input::name);
      if (change != changes.inputs.end()) {
        out.write(11, describe_onnx_tensor(input.name, change->sizes));
        return true;
      }
    }
    out.copy(part);
    return true;
  });
  for (const auto output : changes.more_outputs)
    out.write(12, describe_onnx_tensor(output, {}));
  for (std::size_t index = 0; index < changes.constants.size(); ++index)
    out.write(5, describe_onnx_constant(name_of(index), changes.constants[index].values));
  return out.message();
}

/// A file, of which `signature` was read, with changes, and written for OpenCV 4.6: see `onnx_rephrasing`. That ignores
/// `count_include_pad` of `AveragePool` as well: padding counts if the producer's name is "pytorch". Newer versions go by the
/// attribute alone.
inline std::string rewrite_onnx(std::string_view file, const onnx_signature& signature, const onnx_changes& changes) {
  const auto [counted, uncounted] = onnx_padded_averages(signature);
  wire_writer out;
  for_each_field(file, [&](const auto& part) {
    if (part.number == 2 && counted != uncounted) return true;
    if (part.number == 7)
      out.write(7, rewrite_onnx_graph(part.payload, signature, changes));
    else
      out.copy(part);
    return true;
  });
  if (counted != uncounted) out.write(2, counted ? "pytorch" : "roster");
  return out.message();
}

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
