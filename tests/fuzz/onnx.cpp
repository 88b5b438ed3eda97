// Reading the signature of a network file that may be anything.

#include "tests/fuzz/bytes.hpp"

#include <roster/engines/opencv/onnx_signature.hpp>

#include <functional>
#include <string_view>

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  const auto inside = [&](std::string_view name) {
    const std::less_equal<> before;
    return name.empty() || (before(file.data(), name.data()) && before(name.data() + name.size(), file.data() + size));
  };
  const auto read = roster::detail::read_onnx_signature(file);
  if (!read) return 0;
  for (const auto& input : read->inputs) {
    fuzz::require(inside(input.name), "the name of an input is part of the file");
    fuzz::require(input.has_shape || input.shape.empty(), "an input without a shape has no dimensions");
    fuzz::require(input.shape.size() <= size, "a dimension takes room in the file");
  }
  for (const auto& output : read->outputs)
    fuzz::require(inside(output), "the name of an output is part of the file");
  if (read->missing) fuzz::require(inside(*read->missing) && !read->missing->empty(), "what is missing has a name");
  return 0;
}
