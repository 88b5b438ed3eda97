// Reading the signature of a network file that may be anything.

#include "tests/fuzz/bytes.hpp"

#include <roster/engines/opencv/detail/onnx_rewrite.hpp>
#include <roster/engines/opencv/detail/onnx_signature.hpp>

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  const auto inside = [&](std::string_view name) {
    const std::less_equal<> before;
    return name.empty() || (before(file.data(), name.data()) && before(name.data() + name.size(), file.data() + size));
  };
  const auto read = roster::opencv::detail::read_onnx_signature(file);
  if (!read) return 0;
  for (const auto& input : read->inputs) {
    fuzz::require(inside(input.name), "the name of an input is part of the file");
    fuzz::require(input.has_shape || input.shape.empty(), "an input without a shape has no dimensions");
    fuzz::require(input.shape.size() <= size, "a dimension takes room in the file");
  }
  for (const auto& output : read->outputs)
    fuzz::require(inside(output), "the name of an output is part of the file");
  if (read->missing) fuzz::require(inside(*read->missing) && !read->missing->empty(), "what is missing has a name");

  for (const auto& node : read->nodes)
    for (const auto name : {node.operation, node.domain, node.message, node.value})
      fuzz::require(inside(name), "what an operator says is part of the file");
  for (const auto& [name, tensor] : read->constants)
    if (const auto constant = roster::opencv::detail::read_onnx_constant(tensor))
      fuzz::require(constant->values.size() <= tensor.size(), "a number takes room in the file");

  roster::opencv::detail::onnx_changes changes;
  for (const auto& input : read->inputs)
    changes.inputs.push_back({input.name, {1, 3}});
  const auto rewritten = roster::opencv::detail::rewrite_onnx(file, *read, changes);
  const auto again = roster::opencv::detail::read_onnx_signature(rewritten);
  fuzz::require(again.has_value(), "a file that was rewritten can be read");
  fuzz::require(again->outputs == read->outputs && again->nodes.size() == read->nodes.size(), "it has all that it had");
  for (const auto& input : again->inputs)
    fuzz::require(input.shape == std::vector<std::uint64_t>{1, 3}, "the inputs have the sizes that they were given");
  return 0;
}
