#pragma once

#include <roster/version.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_set>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace detail {

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
  bool has_external_weights = false;
  bool has_matrix_product = false;
};

/// The fields of a message in the wire format of protocol buffers, one after the other.
class wire_reader {
 public:
  struct field {
    std::uint64_t number = 0;
    std::uint64_t value = 0;   // of a varint
    std::string_view payload;  // of a string or a message
  };

  explicit wire_reader(std::string_view message) : rest_(message) {}

  /// False at the end, and where the message is malformed.
  bool next(field& out) {
    if (rest_.empty() || malformed_) return false;
    const auto key = varint();
    out = {key >> 3, 0, {}};
    switch (key & 7) {
      case 0:
        out.value = varint();
        break;
      case 1:
        take(8);
        break;
      case 2:
        out.payload = take(varint());
        break;
      case 5:
        take(4);
        break;
      default:
        malformed_ = true;
    }
    malformed_ = malformed_ || out.number == 0;
    return !malformed_;
  }

  bool malformed() const noexcept { return malformed_; }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= std::uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
    malformed_ = true;
    return 0;
  }

  std::string_view take(std::uint64_t bytes) {
    if (bytes > rest_.size()) {
      malformed_ = true;
      return {};
    }
    const auto taken = rest_.substr(0, static_cast<std::size_t>(bytes));
    rest_.remove_prefix(taken.size());
    return taken;
  }

  std::string_view rest_;
  bool malformed_ = false;
};

/// Calls `visit(field)` for each field. False if the message is malformed, or if `visit` says so.
template <typename Visit>
bool for_each_field(std::string_view message, Visit visit) {
  wire_reader reader(message);
  wire_reader::field field;
  while (reader.next(field))
    if (!visit(field)) return false;
  return !reader.malformed();
}

// The numbers below are those of onnx.proto.

inline bool read_onnx_shape(std::string_view shape, onnx_signature::tensor& out) {
  out.has_shape = true;
  return for_each_field(shape, [&](const auto& dimension) {
    if (dimension.number != 1) return true;
    auto& size = out.shape.emplace_back(0);
    return for_each_field(dimension.payload, [&](const auto& field) {
      if (field.number == 1) size = field.value;
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
        return for_each_field(part.payload, [&](const auto& node) {
          if (node.number == 1) needed.push_back(node.payload);
          if (node.number == 2) provided.insert(node.payload);
          out.has_matrix_product |= node.number == 4 && node.payload == "MatMul";
          return true;
        });
      case 5:
        return for_each_field(part.payload, [&](const auto& weight) {
          if (weight.number == 8) weights.insert(weight.payload);
          out.has_external_weights |= weight.number == 14 && weight.value == 1;
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
  for (const auto& input : out.inputs)
    provided.insert(input.name);
  provided.insert(weights.begin(), weights.end());
  needed.insert(needed.end(), out.outputs.begin(), out.outputs.end());
  for (const auto& name : needed)
    if (!provided.contains(name)) out.missing = name;
  std::erase_if(out.inputs, [&](const auto& input) { return weights.contains(input.name); });
  return true;
}

/// Nothing if the file is not ONNX, or is cut off. The names in the result are views of `file`.
inline std::optional<onnx_signature> read_onnx_signature(std::string_view file) {
  onnx_signature signature;
  bool has_graph = false;
  bool has_operators = false;  // their version: comes after the graph, so a file that was cut off in between has none
  const auto read = [&](const wire_reader::field& part) {
    has_operators |= part.number == 8;
    if (part.number != 7) return true;
    has_graph = true;
    return read_onnx_graph(part.payload, signature);
  };
  if (!for_each_field(file, read) || !has_graph || !has_operators) return std::nullopt;
  return signature;
}

}  // namespace detail

ROSTER_END_NAMESPACE
