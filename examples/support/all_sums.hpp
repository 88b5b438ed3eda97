#pragma once

// The exam of ask_draw_read: all sums at once, and how well it did.

#include "arguments.hpp"
#include "contact_sheet.hpp"
#include "digits.hpp"
#include "heartbeat.hpp"
#include "nearest.hpp"
#include "run_all.hpp"
#include "small_models.hpp"

#include <chrono>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace asio = boost::asio;
using asio::awaitable;

struct answer {
  std::string text;
  std::size_t tokens = 0;
};

struct reading {
  std::size_t digit = 0;
  float similarity = 0;
  std::size_t second_opinion = 0;
};

/// What the four models make of one question, and one seed.
struct result {
  answer said;
  std::size_t drawn = 10;  // the digit that was asked for; 10: none
  roster::image picture;
  reading seen;
  double nearest = 0;  // distance of the drawing from the nearest training scan
  std::chrono::steady_clock::time_point answered, finished;
};

using ask_function = std::function<awaitable<result>(std::string question, std::uint64_t seed)>;
using read_function = std::function<awaitable<std::vector<reading>>(std::vector<roster::image>)>;

struct sum {
  std::string question, caption;
  std::size_t result;
};

/// Sums and differences of two digits with a result of one digit.
inline std::vector<sum> all_sums() {
  std::vector<sum> sums;
  for (std::size_t a = 0; a < 10; ++a)
    for (std::size_t b = 0; b < 10; ++b) {
      if (a + b < 10)
        sums.push_back({fmt::format("{} plus {}", digit_words[a], digit_words[b]), fmt::format("{}+{}", a, b), a + b});
      if (a >= b)
        sums.push_back({fmt::format("{} minus {}", digit_words[a], digit_words[b]), fmt::format("{}-{}", a, b), a - b});
    }
  return sums;
}

inline contact_sheet::cell as_cell(const result& made, const std::string& caption) {
  const bool right = made.seen.digit == made.drawn && made.seen.second_opinion == made.drawn;
  return {&made.picture, right ? contact_sheet::right : contact_sheet::wrong, caption};
}

inline void print_line(const std::string& question, std::span<const result> results) {
  fmt::print("{:18} {:8}", question, results.back().said.text);
  for (const auto& each : results)
    if (!each.picture.empty()) fmt::print("  {} ({:.2f}, {:.2f})", each.seen.digit, each.seen.similarity, each.nearest);
  fmt::print("\n");
}

/// Whether it is as many as it should be.
inline bool print_percent(const char* what, std::size_t count, std::size_t of, double least) {
  const auto percent = 100.0 * static_cast<double>(count) / static_cast<double>(std::max<std::size_t>(of, 1));
  fmt::print("{:28} {:4} of {:4}, {:6.2f} % (at least {:g} % should be)\n", what, count, of, percent, least);
  return percent >= least;
}

inline double per_second(std::size_t count, std::chrono::duration<double> time) {
  return static_cast<double>(count) / time.count();
}

inline void write_sheet(const std::vector<sum>& sums, const std::vector<result>& results, const std::string& file) {
  const auto seeds = results.size() / sums.size();
  contact_sheet sheet(2);
  for (std::size_t i = 0; i < sums.size();) {
    std::vector<contact_sheet::cell> row;
    for (; row.size() < 11 && i < sums.size(); ++i)
      if (const auto& made = results[i * seeds]; !made.picture.empty())
        row.push_back(as_cell(made, sums[i].caption + "=" + std::to_string(made.drawn)));
    sheet.add_row(std::move(row));
  }
  sheet.write(file);
  fmt::print("one drawing of each sum: {}\n", file);
}

/// Asks every sum `--seeds` times, all at once, reads the held-out scans, and throws if too little is right.
inline awaitable<void> answer_all_sums(const ask_function& ask, const read_function& read, roster::blocking_pool& pool,
                                       const arguments& given) {
  const auto scans = load_digits(given.text("--models", ROSTER_EXAMPLE_MODELS));
  const auto sums = all_sums();
  const auto seeds = given.count("--seeds", 5);
  std::vector<result> results(sums.size() * seeds);
  std::vector<std::size_t> done(sums.size());

  const std::function job = [&](std::size_t number) -> awaitable<void> {
    auto& made = results[number];
    made = co_await ask(sums[number / seeds].question, number + 1);
    const auto compare = [&] {
      return made.picture.empty() ? 0 : distance_to_nearest_training_scan(scans, shrink(made.picture));
    };
    made.nearest = co_await pool.run(compare);
    if (++done[number / seeds] == seeds)
      print_line(sums[number / seeds].question, std::span(results).subspan(number / seeds * seeds, seeds));
  };
  fmt::print("question, answer, and of each drawing: what was read (similarity, distance to the nearest training scan)\n");
  heartbeat beat(co_await asio::this_coro::executor);
  const auto start = std::chrono::steady_clock::now();
  co_await run_all(results.size(), 1000, job);  // a model accepts little more at a time
  beat.stop();

  std::size_t answered = 0, drawn = 0, read_back = 0, second = 0, tokens = 0;
  auto last_answer = start, last_drawing = start;
  std::vector<double> drawings, held_out;
  for (std::size_t number = 0; number < results.size(); ++number) {
    const auto& made = results[number];
    answered += made.drawn == sums[number / seeds].result;
    tokens += made.said.tokens;
    last_answer = std::max(last_answer, made.answered);
    if (made.drawn == digit_words.size()) continue;
    ++drawn;
    read_back += made.seen.digit == made.drawn;
    second += made.seen.second_opinion == made.drawn;
    last_drawing = std::max(last_drawing, made.finished);
    drawings.push_back(made.nearest);
  }
  if (drawn == 0) throw std::runtime_error("no answer is a digit, so nothing was drawn");
  std::vector<roster::image> unseen(scans.scans.begin() + digits::training_count, scans.scans.end());
  for (const auto& scan : unseen)
    held_out.push_back(distance_to_nearest_training_scan(scans, scan));
  std::size_t scans_read = 0, next_label = digits::training_count;
  for (const auto& seen : co_await read(std::move(unseen)))
    scans_read += static_cast<int>(seen.digit) == scans.labels[next_label++];

  print_distances("\ndrawings", drawings);
  print_distances("held-out scans", held_out);
  fmt::print("{:.0f} tokens/s, {:.1f} drawings/s, worst heartbeat delay {:.1f} ms\n", per_second(tokens, last_answer - start),
             per_second(drawn, last_drawing - start), beat.worst_ms());
  write_sheet(sums, results, given.text("--output", "ask_draw_read.png"));
  const bool good[] = {print_percent("sums answered right", answered, results.size(), 98),
                       print_percent("drawings read back right", read_back, drawn, 99),
                       print_percent("second opinion agrees", second, drawn, 98),
                       print_percent("held-out scans read right", scans_read, held_out.size(), 98.5)};
  if (std::ranges::find(good, false) != std::end(good)) throw std::runtime_error("too little is right");
}
