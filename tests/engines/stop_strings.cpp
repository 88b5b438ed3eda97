#include <roster/engines/detail/stop_strings.hpp>

#include "tests/support/catch.hpp"

#include <string>
#include <vector>

namespace {

/// The text before the end that these strings make.
std::string cut(const std::vector<std::string>& stops, const std::string& text) {
  roster::detail::stop_strings filter(stops);
  std::string given;
  for (const char character : text) {
    if (filter.add(character)) break;
    given += filter.take();
  }
  return given + filter.take_rest();
}

}  // namespace

TEST_CASE("of stop strings that are complete at the same character, the longest counts, in whatever order they were given") {
  CHECK(cut({"four", " four"}, "three four five") == "three");
  CHECK(cut({" four", "four"}, "three four five") == "three");
  CHECK(cut({"ur", "four", "our"}, "three four five") == "three ");
}

TEST_CASE("the stop string that is complete first counts, though another began before it") {
  CHECK(cut({"three four", "hr"}, "three four five") == "t");
  CHECK(cut({"hr", "three four"}, "three four five") == "t");
}

TEST_CASE("what only begins like a stop string is given out") {
  CHECK(cut({"fourteen"}, "three four five") == "three four five");
  CHECK(cut({"aab"}, "aaab") == "a");
  CHECK(cut({}, "three") == "three");
}
