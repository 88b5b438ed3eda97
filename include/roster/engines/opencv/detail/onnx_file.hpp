#pragma once

#include <roster/engines/opencv/detail/onnx_signature.hpp>
#include <roster/error.hpp>
#include <roster/version.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace opencv::detail {

/// `1 x 3 x ?`, where 0 stands for a size that is left open.
template <typename Size>
std::string describe_shape(std::span<const Size> sizes) {
  std::string text;
  for (const auto size : sizes)
    text += (text.empty() ? "" : " x ") + (size == 0 ? "?" : std::to_string(size));
  return text.empty() ? "a scalar" : text;
}

inline std::string to_string(const onnx_signature::tensor& input) {
  return fmt::format("input '{}' is {}", input.name, describe_shape(std::span<const std::uint64_t>(input.shape)));
}

/// An ONNX file that is complete, and what it says of its network.
class onnx_file {
 public:
  /// Throws `bad_model`.
  explicit onnx_file(const std::filesystem::path& path) : name_(path.string()), bytes_(read(path)) {
    auto signature = read_onnx_signature(bytes_);
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

  [[noreturn]] void fail(errc code, const std::string& reason) const { throw error(code, name_ + ": " + reason); }

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
                                 std::string_view expected_text) const {
    std::uint64_t room = 1U << 28U;  // values of an input: 1 GiB
    std::vector<std::size_t> sizes(expected);
    if (!input.has_shape) return sizes;
    bool fits = input.shape.size() == sizes.size();
    for (std::size_t axis = 0; fits && axis < sizes.size(); ++axis) {
      const auto actual = input.shape[axis];
      fits = actual <= room && (actual == 0 || sizes[axis] == 0 || actual == sizes[axis]);
      if (sizes[axis] == 0) sizes[axis] = static_cast<std::size_t>(actual);
      if (sizes[axis] != 0) room /= sizes[axis];
    }
    if (!fits) fail(errc::bad_model, fmt::format("{}, expected {}", to_string(input), expected_text));
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

}  // namespace opencv::detail

ROSTER_END_NAMESPACE
