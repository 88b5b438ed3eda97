#pragma once

#include <roster/call/sink.hpp>
#include <roster/error.hpp>

#include "tests/support/catch.hpp"
#include "tests/support/sanitizers.hpp"

#include <opencv2/core/utility.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace test {

namespace fs = std::filesystem;

#if ROSTER_TEST_TSAN
// Debian's OpenCV computes on TBB's threads, and ThreadSanitizer, which sees memcpy there but no atomics, calls that a race.
inline const bool has_one_thread = [] {
  cv::setNumThreads(1);
  return true;
}();
#endif

inline const fs::path models = fs::path(ROSTER_SOURCE_DIR) / "examples" / "models";

inline fs::path network(const std::string& name) {
  return fs::path(ROSTER_SOURCE_DIR) / "tests" / "engines" / "data" / (name + ".onnx");
}

inline std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class temporary_file {
 public:
  explicit temporary_file(const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }
  temporary_file(const temporary_file&) = delete;
  temporary_file& operator=(const temporary_file&) = delete;
  ~temporary_file() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }

  const fs::path path = fs::temp_directory_path() / ("roster_" + std::to_string(std::random_device{}()) + ".onnx");
};

/// The message of the error that `function` throws.
template <typename Function>
std::string message_of(roster::errc expected, Function function) {
  try {
    function();
  } catch (const roster::error& failure) {
    CHECK(failure.code() == expected);
    return failure.what();
  }
  FAIL("nothing was thrown");
  return {};
}

inline bool is_near(std::span<const float> one, std::span<const float> other, float tolerance) {
  return std::ranges::equal(one, other, [=](float a, float b) { return std::abs(a - b) <= tolerance; });
}

/// The rest of the lines of a file in examples/models that begin with `word`.
inline std::vector<std::string> lines(const std::string& file, const std::string& word) {
  std::vector<std::string> found;
  std::ifstream stream(models / file);
  for (std::string line; std::getline(stream, line);)
    if (line.starts_with(word + " ")) found.push_back(line.substr(word.size() + 1));
  return found;
}

/// Keeps what an engine pushes, and wants no more after so many chunks.
template <typename Chunk>
class collector final : public roster::sink<Chunk> {
 public:
  explicit collector(std::size_t wanted = std::numeric_limits<std::size_t>::max()) : wanted_(wanted) {}

  bool push(Chunk chunk) override {
    ++pushes;
    if (chunks.size() < wanted_) chunks.push_back(std::move(chunk));
    return chunks.size() < wanted_;
  }

  std::vector<Chunk> chunks;
  std::size_t pushes = 0;

 private:
  std::size_t wanted_;
};

}  // namespace test
