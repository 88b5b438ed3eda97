#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

/// A command line: words, and options of the form `--name value`, or `--name` for those without.
class arguments {
 public:
  arguments(int argc, char** argv, std::vector<std::string> with_value, std::vector<std::string> without = {}) {
    const std::vector<std::string> given(argv + 1, argv + argc);
    const auto has = [](const auto& names, const auto& name) { return std::ranges::find(names, name) != names.end(); };
    for (std::size_t i = 0; i < given.size(); ++i) {
      if (!given[i].starts_with("--"))
        words.push_back(given[i]);
      else if (has(without, given[i]))
        options_[given[i]];
      else if (has(with_value, given[i]) && i + 1 < given.size())
        options_[given[i]] = given[i + 1], ++i;
      else
        throw std::invalid_argument(fmt::format("what is '{}'? There are {} {}", given[i], fmt::join(with_value, " VALUE, "),
                                                fmt::join(without, ", ")));
    }
  }

  bool has(const std::string& option) const { return options_.contains(option); }

  std::string text(const std::string& option, std::string otherwise) const {
    return has(option) ? options_.at(option) : std::move(otherwise);
  }

  template <typename Number>
  Number number(const std::string& option, Number otherwise) const {
    if (!has(option)) return otherwise;
    const auto& value = options_.at(option);
    const auto end = value.data() + value.size();
    if (const auto read = std::from_chars(value.data(), end, otherwise); read.ec != std::errc() || read.ptr != end)
      throw std::invalid_argument(fmt::format("{} {}: not a number, or out of range", option, value));
    return otherwise;
  }

  /// A number of things of which there has to be one at least.
  std::size_t count(const std::string& option, std::size_t otherwise) const {
    const auto given = number(option, otherwise);
    if (given == 0) throw std::invalid_argument(option + " 0: at least 1 is needed");
    return given;
  }

  std::vector<std::string> words;

 private:
  std::map<std::string, std::string> options_;
};
