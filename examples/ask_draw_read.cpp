// Four networks behind one catalog, on one event loop: a language model answers a small sum in words, a diffusion model draws
// the answer, an image encoder looks at the drawing, a text encoder reads the labels, and the nearest label is what was drawn.
//
//     ask_draw_read QUESTION [--seed N]             one question: tokens, steps and reading as they come
//     ask_draw_read --all [--seeds COUNT]           all sums with a result of one digit at once, with several seeds each
//                   [--output FILE.png] [--models FOLDER]

#include "support/all_sums.hpp"
#include "support/arguments.hpp"
#include "support/progress_bar.hpp"
#include "support/small_models.hpp"

#include <boost/asio/io_context.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <opencv2/core/utility.hpp>

#include <thread>

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

awaitable<std::vector<reading>> read(model_catalog& models, std::vector<roster::image> pictures) {
  const auto texts = co_await models.get<roster::text_embedding>("joint");
  const auto images = co_await models.get<roster::image_embedding>("joint");
  const auto classifier = co_await models.get<roster::image_embedding>("second opinion");
  std::vector<std::string> labels;
  for (const auto* word : digit_words)
    labels.push_back(fmt::format("the digit {}", word));
  const auto meanings = co_await texts->embed(std::move(labels));
  const auto scores = co_await classifier->embed(pictures);
  const auto looks = co_await images->embed(std::move(pictures));

  std::vector<reading> seen(looks.rows());
  for (std::size_t i = 0; i < seen.size(); ++i) {
    for (std::size_t digit = 0; digit < digit_words.size(); ++digit) {
      const auto similarity = std::inner_product(looks[i].begin(), looks[i].end(), meanings[digit].begin(), 0.0F);
      if (digit == 0 || similarity > seen[i].similarity) seen[i].digit = digit, seen[i].similarity = similarity;
    }
    seen[i].second_opinion = static_cast<std::size_t>(std::ranges::max_element(scores[i]) - scores[i].begin());
  }
  co_return seen;
}

awaitable<result> ask_draw_read(model_catalog& models, std::string question, std::uint64_t seed, bool show) {
  result made;
  made.said = co_await ask(models, std::move(question), seed, show);
  made.answered = made.finished = std::chrono::steady_clock::now();
  if (show) fmt::print("\n");
  const auto word = std::ranges::find(digit_words, made.said.text);
  made.drawn = static_cast<std::size_t>(word - digit_words.begin());
  if (made.drawn == digit_words.size()) co_return made;
  made.picture = co_await draw(models, made.drawn, seed, show);
  const auto seen = co_await read(models, std::vector(1, made.picture));
  made.seen = seen.front();
  made.finished = std::chrono::steady_clock::now();
  co_return made;
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

awaitable<void> application(roster::blocking_pool& pool, std::size_t threads, const arguments& given) {
  model_catalog models{co_await asio::this_coro::executor};
  co_await add_small_models(models, pool, given.text("--models", ROSTER_EXAMPLE_MODELS), threads);
  if (!given.has("--all")) co_return co_await answer_one(models, given);
  const ask_function ask_one = [&](std::string question, std::uint64_t seed) {
    return ask_draw_read(models, std::move(question), seed, false);
  };
  const read_function read_scans = [&](std::vector<roster::image> scans) { return read(models, std::move(scans)); };
  co_await answer_all_sums(ask_one, read_scans, pool, given);
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
