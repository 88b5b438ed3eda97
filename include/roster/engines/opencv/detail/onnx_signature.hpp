#pragma once

#include <roster/engines/opencv/detail/wire_format.hpp>
#include <roster/version.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// An operator of a network, with those of its attributes that are no tensors or graphs.
struct onnx_node {
  /// A number, a text or a list, whichever it is.
  struct attribute {
    std::string_view name;
    std::int64_t integer = 0;
    float number = 0;
    std::string_view text;
    std::vector<std::int64_t> integers;
  };

  std::string_view message;  // all of it
  std::string_view operation, domain;
  std::vector<std::string_view> inputs, outputs;
  std::vector<attribute> attributes;
  std::string_view value;  // the tensor of a `Constant`

  const attribute* find(std::string_view called) const {
    const auto found = std::ranges::find(attributes, called, &attribute::name);
    return found == attributes.end() ? nullptr : &*found;
  }
  std::int64_t integer(std::string_view called, std::int64_t otherwise) const {
    const auto* found = find(called);
    return found != nullptr ? found->integer : otherwise;
  }
  float number(std::string_view called, float otherwise) const {
    const auto* found = find(called);
    return found != nullptr ? found->number : otherwise;
  }
  std::string_view text(std::string_view called, std::string_view otherwise) const {
    const auto* found = find(called);
    return found != nullptr ? found->text : otherwise;
  }
  std::vector<std::int64_t> integers(std::string_view called) const {
    const auto* found = find(called);
    return found != nullptr ? found->integers : std::vector<std::int64_t>();
  }
};

/// What an ONNX file says of its network, without the weights. OpenCV 4.6 keeps none of this, and computes with whatever shape
/// it is given.
struct onnx_signature {
  /// An input.
  struct tensor {
    std::string_view name;
    std::vector<std::uint64_t> shape;  // 0: any
    bool has_shape = false;
  };

  std::vector<tensor> inputs;  // without the weights that older files list as well
  std::vector<std::string_view> outputs;
  std::optional<std::string_view> missing;  // what an operator refers to, but nothing provides: OpenCV 4.6 crashes
  bool has_short_weights = false;           // fewer values than a shape says: OpenCV 4.6 reads past their end
  bool has_external_weights = false;
  std::vector<onnx_node> nodes;                                      // in the order in which they can be computed
  std::unordered_map<std::string_view, std::string_view> constants;  // the message of each tensor that the file has, by name
  std::uint64_t operators_version = 0;
};

// The numbers below are those of onnx.proto.

/// Where a tensor keeps the values of a type.
struct onnx_storage {
  std::uint8_t value_bytes;  // in `raw_data`; 0 for types that are not kept there
  std::uint8_t list;         // the field of the list that is used instead, if it is there
};

inline onnx_storage storage_of_onnx_type(std::uint64_t type) {
  constexpr onnx_storage storages[] = {{0, 0}, {4, 4}, {1, 5},  {1, 5},  {2, 5},  {2, 5}, {4, 5},   {8, 7}, {0, 6},
                                       {1, 5}, {2, 5}, {8, 10}, {4, 11}, {8, 11}, {8, 4}, {16, 10}, {2, 5}};
  return type < std::size(storages) ? storages[type] : onnx_storage{0, 0};
}

/// Values that are stored in the file: of an initializer, or of a constant.
inline bool read_onnx_values(std::string_view tensor, onnx_signature& out) {
  std::uint64_t count = 1;  // that the shape asks for; no tensor has more than bytes
  std::uint64_t type = 0, raw_bytes = 0;
  std::uint64_t listed[12] = {};
  bool is_external = false;
  const auto read = [&](const auto& field) {
    switch (field.number) {
      case 1:
        return for_each_integer(field, [&](std::uint64_t size) {
          const bool fits = size == 0 || count <= tensor.size() / size;
          count = fits ? count * size : tensor.size() + 1;
        });
      case 2:
        type = field.value;
        return true;
      case 4:
        listed[4] += count_fixed(field, sizeof(float));
        return true;
      case 5:
      case 7:
      case 11:
        return for_each_integer(field, [&](std::uint64_t) { ++listed[field.number]; });
      case 9:
        raw_bytes = field.payload.size();
        return true;
      case 10:
        listed[10] += count_fixed(field, sizeof(double));
        return true;
      case 14:
        is_external = field.value == 1;
        return true;
      default:
        return true;
    }
  };
  if (!for_each_field(tensor, read)) return false;
  out.has_external_weights |= is_external;
  const auto [value_bytes, list] = storage_of_onnx_type(type);
  const bool is_whole = listed[list] != 0 ? listed[list] == count : raw_bytes == count * value_bytes;
  out.has_short_weights |= value_bytes != 0 && !is_external && !is_whole;
  return true;
}

/// An attribute of an operator; constants among them are looked at.
inline bool read_onnx_attribute(std::string_view message, onnx_node& node, onnx_signature& out) {
  onnx_node::attribute read;
  std::string_view value;
  const auto take = [&](const auto& field) {
    switch (field.number) {
      case 1:
        read.name = field.payload;
        return true;
      case 2:
        read.number = read_float(field.payload);
        return true;
      case 3:
        read.integer = static_cast<std::int64_t>(field.value);
        return true;
      case 4:
        read.text = field.payload;
        return true;
      case 5:
        value = field.payload;
        return read_onnx_values(field.payload, out);
      case 8:
        return for_each_integer(field, [&](std::uint64_t each) { read.integers.push_back(static_cast<std::int64_t>(each)); });
      case 10:
        return read_onnx_values(field.payload, out);
      default:
        return true;
    }
  };
  if (!for_each_field(message, take)) return false;
  if (read.name == "value") node.value = value;
  node.attributes.push_back(std::move(read));
  return true;
}

inline bool read_onnx_node(std::string_view message, onnx_signature& out) {
  onnx_node node;
  node.message = message;
  const auto take = [&](const auto& field) {
    switch (field.number) {
      case 1:
        node.inputs.push_back(field.payload);
        return true;
      case 2:
        node.outputs.push_back(field.payload);
        return true;
      case 4:
        node.operation = field.payload;
        return true;
      case 5:
        return read_onnx_attribute(field.payload, node, out);
      case 7:
        node.domain = field.payload;
        return true;
      default:
        return true;
    }
  };
  if (!for_each_field(message, take)) return false;
  if (node.operation == "Constant" && node.outputs.size() == 1 && !node.value.empty())
    out.constants.emplace(node.outputs.front(), node.value);
  out.nodes.push_back(std::move(node));
  return true;
}

inline bool read_onnx_shape(std::string_view shape, onnx_signature::tensor& out) {
  out.has_shape = true;
  return for_each_field(shape, [&](const auto& dimension) {
    if (dimension.number != 1) return true;
    auto& size = out.shape.emplace_back(0);
    return for_each_field(dimension.payload, [&](const auto& field) {
      if (field.number == 1)
        size = static_cast<std::int64_t>(field.value) < 0 ? 0 : field.value;  // some exporters write -1 for any
      return true;
    });
  });
}

inline bool read_onnx_tensor(std::string_view value_info, onnx_signature::tensor& out) {
  return for_each_field(value_info, [&](const auto& info) {
    if (info.number == 1) out.name = info.payload;
    if (info.number != 2) return true;
    return for_each_field(info.payload, [&](const auto& type) {
      if (type.number != 1) return true;
      return for_each_field(type.payload,
                            [&](const auto& field) { return field.number != 2 || read_onnx_shape(field.payload, out); });
    });
  });
}

inline bool read_onnx_graph(std::string_view graph, onnx_signature& out) {
  std::unordered_set<std::string_view> weights;
  std::unordered_set<std::string_view> provided{""};  // stands for an optional input
  std::vector<std::string_view> needed;
  const auto read = [&](const wire_reader::field& part) {
    switch (part.number) {
      case 1:
        return read_onnx_node(part.payload, out);
      case 5:
        return read_onnx_values(part.payload, out) && for_each_field(part.payload, [&](const auto& weight) {
                 if (weight.number != 8) return true;
                 weights.insert(weight.payload);
                 out.constants.emplace(weight.payload, part.payload);
                 return true;
               });
      case 11:
        return read_onnx_tensor(part.payload, out.inputs.emplace_back());
      case 12: {
        onnx_signature::tensor output;
        const auto valid = read_onnx_tensor(part.payload, output);
        out.outputs.push_back(output.name);
        return valid;
      }
      default:
        return true;
    }
  };
  if (!for_each_field(graph, read)) return false;
  for (const auto& node : out.nodes) {
    needed.insert(needed.end(), node.inputs.begin(), node.inputs.end());
    provided.insert(node.outputs.begin(), node.outputs.end());
  }
  for (const auto& input : out.inputs)
    provided.insert(input.name);
  provided.insert(weights.begin(), weights.end());
  needed.insert(needed.end(), out.outputs.begin(), out.outputs.end());
  for (const auto& name : needed)
    if (!provided.contains(name)) out.missing = name;
  std::erase_if(out.inputs, [&](const auto& input) { return weights.contains(input.name); });
  return true;
}

/// Which version of a set of operators the file uses. Of several sets, the standard one has no name, or this one.
inline bool read_onnx_operators(std::string_view message, onnx_signature& out) {
  std::string_view domain;
  std::uint64_t version = 0;
  const auto take = [&](const auto& field) {
    if (field.number == 1) domain = field.payload;
    if (field.number == 2) version = field.value;
    return true;
  };
  if (!for_each_field(message, take)) return false;
  if (domain.empty() || domain == "ai.onnx") out.operators_version = (std::max)(out.operators_version, version);
  return true;
}

/// Nothing if the file is not ONNX, or is cut off. The names in the result are views of `file`.
inline std::optional<onnx_signature> read_onnx_signature(std::string_view file) {
  onnx_signature signature;
  bool has_graph = false;
  bool has_operators = false;  // their version: comes after the graph, so a file that was cut off in between has none
  const auto read = [&](const wire_reader::field& part) {
    if (part.number == 8) {
      has_operators = true;
      return read_onnx_operators(part.payload, signature);
    }
    if (part.number != 7) return true;
    if (has_graph) return false;
    has_graph = true;
    return read_onnx_graph(part.payload, signature);
  };
  if (!for_each_field(file, read) || !has_graph || !has_operators) return std::nullopt;
  return signature;
}

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
