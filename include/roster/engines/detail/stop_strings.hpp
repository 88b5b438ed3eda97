#pragma once

#include <roster/version.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

namespace detail {

/// Text that comes character by character, and ends before any of some strings.
class stop_strings {
 public:
  explicit stop_strings(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  /// True if the text has ended: a stop string is complete, and is taken away. Of several that are, the longest.
  bool add(char character) {
    text_ += character;
    std::size_t longest = 0;
    for (const auto& stop : stops_)
      if (text_.ends_with(stop)) longest = (std::max)(longest, stop.size());
    text_.resize(text_.size() - longest);
    return longest != 0;
  }

  /// What cannot belong to a stop string any more.
  std::string take() {
    std::size_t decided = 0;
    while (decided < text_.size() && !begins_stop(std::string_view(text_).substr(decided)))
      ++decided;
    auto taken = text_.substr(0, decided);
    text_.erase(0, decided);
    return taken;
  }

  /// All that is left.
  std::string take_rest() { return std::exchange(text_, {}); }

 private:
  bool begins_stop(std::string_view end) const {
    return std::ranges::any_of(stops_, [&](const auto& stop) { return std::string_view(stop).starts_with(end); });
  }

  std::vector<std::string> stops_;
  std::string text_;
};

}  // namespace detail

ROSTER_END_NAMESPACE
