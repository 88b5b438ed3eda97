// Four networks behind one catalog, on one event loop: a language model answers a small sum in words, a diffusion model draws
// the answer, an image encoder looks at the drawing, a text encoder reads the labels, and the nearest label is what was drawn.
//
//     ask_draw_read QUESTION [--seed N]             one question: tokens, steps and reading as they come
//     ask_draw_read --all [--seeds COUNT]           all sums with a result of one digit at once, with several seeds each
//                   [--output FILE.png] [--models FOLDER]

#include "support/arguments.hpp"
#include "support/contact_sheet.hpp"
#include "support/digits.hpp"
#include "support/heartbeat.hpp"
#include "support/nearest.hpp"
#include "support/progress_bar.hpp"
#include "support/run_all.hpp"
#include "support/small_models.hpp"

#include <boost/asio/io_context.hpp>

#include <opencv2/core/utility.hpp>

#include <chrono>
#include <thread>

namespace asio = boost::asio;
using asio::awaitable;
using clock_type = std::chrono::steady_clock;

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
  clock_type::time_point answered, finished;
};

awaitable<answer> ask(model_catalog& models, std::string question, std::uint64_t seed, bool show) {
  const auto model = co_await models.get<roster::text_to_text>("language");
  roster::text_request request(std::move(question));
  request.temperature(0.5F).seed(seed);
  auto tokens = model->generate(std::move(request));
  answer said;
  while (auto event = co_await tokens.next()) {
    if (const auto* text = std::get_if<std::string>(&*event)) {
      if (show) fmt::print("{}", *text), std::fflush(stdout);
      said.text += *text;
    } else {
      said.tokens = std::get<roster::text_end>(*event).completion_tokens;
    }
  }
  co_return said;
}

awaitable<roster::image> draw(model_catalog& models, std::size_t digit, std::uint64_t seed, bool show) {
  const auto model = co_await models.get<roster::text_to_image>("digits");
  roster::image_request request(fmt::format("the digit {}", digit_words[digit]));
  request.seed(seed);
  auto drawing = model->generate(std::move(request));
  roster::image picture;
  progress_bar bar(fmt::format("drawing {}", digit_words[digit]));
  while (auto event = co_await drawing.next()) {
    if (auto* step = std::get_if<roster::image_step>(&*event)) {
      if (show) bar.show(step->step, step->total);
    } else {
      picture = std::move(std::get<roster::image>(*event));
    }
  }
  co_return picture;
}

awaitable<reading> read(model_catalog& models, roster::image picture) {
  const auto texts = co_await models.get<roster::text_embedding>("joint");
  const auto images = co_await models.get<roster::image_embedding>("joint");
  const auto classifier = co_await models.get<roster::image_embedding>("second opinion");
  std::vector<std::string> labels;
  for (const auto* word : digit_words)
    labels.push_back(fmt::format("the digit {}", word));
  const auto meanings = co_await texts->embed(std::move(labels));
  const auto scores = co_await classifier->embed(picture);
  const auto look = co_await images->embed(std::move(picture));

  reading seen;
  for (std::size_t digit = 0; digit < digit_words.size(); ++digit) {
    const auto similarity = std::inner_product(look.begin(), look.end(), meanings[digit].begin(), 0.0F);
    if (digit == 0 || similarity > seen.similarity) seen.digit = digit, seen.similarity = similarity;
  }
  seen.second_opinion = static_cast<std::size_t>(std::ranges::max_element(scores) - scores.begin());
  co_return seen;
}

awaitable<result> ask_draw_read(model_catalog& models, std::string question, std::uint64_t seed, bool show) {
  result made;
  made.said = co_await ask(models, std::move(question), seed, show);
  made.answered = made.finished = clock_type::now();
  if (show) fmt::print("\n");
  const auto word = std::ranges::find(digit_words, made.said.text);
  made.drawn = static_cast<std::size_t>(word - digit_words.begin());
  if (made.drawn == digit_words.size()) co_return made;
  made.picture = co_await draw(models, made.drawn, seed, show);
  made.seen = co_await read(models, made.picture);
  made.finished = clock_type::now();
  co_return made;
}

struct sum {
  std::string question, caption;
  std::size_t result;
};

std::vector<sum> all_sums() {
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

contact_sheet::cell as_cell(const result& made, const std::string& caption) {
  const bool right = made.seen.digit == made.drawn && made.seen.second_opinion == made.drawn;
  const auto frame = right ? contact_sheet::colour{40, 160, 60} : contact_sheet::colour{220, 30, 30};
  return {&made.picture, frame, caption};
}

awaitable<void> answer_one(model_catalog& models, const arguments& given) {
  const auto question = fmt::format("{}", fmt::join(given.words, " "));
  fmt::print("{} ", question);
  const auto seed = given.number("--seed", std::uint64_t{1});
  const auto made = co_await ask_draw_read(models, question, seed, true);
  if (made.drawn == digit_words.size()) {
    fmt::print("'{}' is not a digit, so there is nothing to draw\n", made.said.text);
    co_return;
  }
  fmt::print("read as {} (similarity {:.3f}), second opinion: {}\n", digit_words[made.seen.digit], made.seen.similarity,
             digit_words[made.seen.second_opinion]);
  contact_sheet sheet(4);
  sheet.add_row({as_cell(made, made.said.text)});
  sheet.write(given.text("--output", "ask_draw_read.png"));
  fmt::print("{}\n", given.text("--output", "ask_draw_read.png"));
}

void print_line(const std::string& question, std::span<const result> results) {
  fmt::print("{:18} {:8}", question, results.back().said.text);
  for (const auto& each : results)
    if (!each.picture.empty()) fmt::print("  {} ({:.2f}, {:.2f})", each.seen.digit, each.seen.similarity, each.nearest);
  fmt::print("\n");
}

void print_percent(const char* what, std::size_t count, std::size_t of, double least) {
  const auto percent = 100.0 * static_cast<double>(count) / static_cast<double>(std::max<std::size_t>(of, 1));
  fmt::print("{:28} {:4} of {:4}, {:6.2f} %\n", what, count, of, percent);
  if (percent < least) throw std::runtime_error(fmt::format("{}: fewer than {} %", what, least));
}

double per_second(std::size_t count, std::chrono::duration<double> time) {
  return static_cast<double>(count) / time.count();
}

awaitable<void> answer_all(model_catalog& models, roster::blocking_pool& pool, const arguments& given) {
  const auto scans = load_digits(given.text("--models", ROSTER_EXAMPLE_MODELS));
  const auto sums = all_sums();
  const auto seeds = given.number("--seeds", std::size_t{5});
  std::vector<result> results(sums.size() * seeds);
  std::vector<std::size_t> done(sums.size());

  const std::function job = [&](std::size_t number) -> awaitable<void> {
    const auto& question = sums[number / seeds].question;
    auto& made = results[number];
    made = co_await ask_draw_read(models, question, number + 1, false);
    const auto compare = [&] {
      return made.picture.empty() ? 0 : distance_to_nearest_training_scan(scans, shrink(made.picture));
    };
    made.nearest = co_await pool.run(compare);
    if (++done[number / seeds] == seeds) print_line(question, std::span(results).subspan(number / seeds * seeds, seeds));
  };
  fmt::print("question, answer, and of each drawing: what was read (similarity, distance to the nearest training scan)\n");
  heartbeat beat(co_await asio::this_coro::executor);
  const auto start = clock_type::now();
  co_await run_all(results.size(), results.size(), job);
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
  for (std::size_t i = digits::training_count; i < scans.scans.size(); ++i)
    held_out.push_back(distance_to_nearest_training_scan(scans, scans.scans[i]));

  contact_sheet sheet(2);
  for (std::size_t i = 0; i < sums.size();) {
    std::vector<contact_sheet::cell> row;
    for (; row.size() < 11 && i < sums.size(); ++i)
      if (const auto& made = results[i * seeds]; !made.picture.empty())
        row.push_back(as_cell(made, sums[i].caption + "=" + std::to_string(made.drawn)));
    sheet.add_row(std::move(row));
  }
  const auto file = given.text("--output", "ask_draw_read.png");
  sheet.write(file);

  print_distances("\ndrawings", drawings);
  print_distances("held-out scans", held_out);
  fmt::print("{:.0f} tokens/s, {:.1f} drawings/s, worst heartbeat delay {:.1f} ms\n", per_second(tokens, last_answer - start),
             per_second(drawn, last_drawing - start), beat.worst_ms());
  fmt::print("one drawing of each sum: {}\n", file);
  print_percent("sums answered right", answered, results.size(), 98);
  print_percent("drawings read back right", read_back, drawn, 99);
  print_percent("second opinion agrees", second, drawn, 98);
}

awaitable<void> application(roster::blocking_pool& pool, std::size_t threads, const arguments& given) {
  model_catalog models{co_await asio::this_coro::executor};
  co_await add_small_models(models, pool, given.text("--models", ROSTER_EXAMPLE_MODELS), threads);
  if (given.has("--all"))
    co_await answer_all(models, pool, given);
  else
    co_await answer_one(models, given);
}

int main(int argc, char** argv) try {
  cv::setNumThreads(1);  // the pool's threads are enough
  const arguments given(argc, argv, {"--seed", "--seeds", "--output", "--models"}, {"--all"});
  if (given.words.empty() != given.has("--all")) throw std::invalid_argument("a question, or --all?");
  const auto threads = std::max(2U, std::thread::hardware_concurrency());
  asio::io_context loop;
  roster::blocking_pool pool{threads};
  asio::co_spawn(loop, application(pool, threads, given), [](std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
  });
  loop.run();
} catch (const std::exception& failure) {
  fmt::print(stderr, "ask_draw_read: {}\n", failure.what());
  return 1;
}
