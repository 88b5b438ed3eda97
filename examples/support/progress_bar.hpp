#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdio>
#include <string>
#include <utility>

#include <unistd.h>

/// Shows how far something long has come: a bar that moves on a terminal, and a line per quarter where output is redirected.
class progress_bar {
 public:
  explicit progress_bar(std::string label) : label_(std::move(label)) {}

  void show(std::size_t done, std::size_t total) {
    if (on_terminal_) {
      const auto filled = done * width / total;
      fmt::print("\r{} [{:=<{}}{: <{}}] {}/{}{}", label_, "", filled, "", width - filled, done, total,
                 done == total ? "\n" : "");
      std::fflush(stdout);
    } else if (const auto quarter = done * 4 / total; quarter > std::exchange(quarter_, quarter)) {
      fmt::print("{} {}/{}\n", label_, done, total);
    }
  }

 private:
  static constexpr std::size_t width = 32;
  std::string label_;
  bool on_terminal_ = isatty(STDOUT_FILENO) == 1;
  std::size_t quarter_ = 0;
};
