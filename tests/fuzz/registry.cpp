// Sequences of changes and lookups of a registry, against a map.

#include "tests/fuzz/bytes.hpp"

#include <roster/registry/registry.hpp>

#include "tests/support/asio.hpp"
#include "tests/support/models.hpp"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace asio = boost::asio;
using fuzz::require;
using roster::image_embedding;

namespace {

/// One registration: what a lookup finds once it is loaded.
struct plain_entry {
  std::shared_ptr<image_embedding::model> model;
  std::shared_ptr<test::gate> gate;  // null for a model that is ready
  bool loaded = false;
};

struct lookup {
  test::task<roster::lease<image_embedding>> running;
  std::shared_ptr<plain_entry> of;
  bool cancelled = false;
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 200) return 0;
  fuzz::bytes input(data, size);
  asio::io_context loop;
  roster::registry<image_embedding> models(loop);
  std::map<std::string, std::shared_ptr<plain_entry>> plain;
  std::vector<lookup> lookups;

  const auto finish = [&](auto operation, roster::errc unless, bool refused) {
    auto running = test::spawn(loop, std::move(operation));
    test::drain(loop);
    require(running.done(), "a change does not wait");
    require(refused ? running.code() == unless : running.succeeded(), "a change fails as it does with the map");
  };
  const auto ready = [] {
    auto entry = std::make_shared<plain_entry>();
    entry->model = test::make_model(1);
    entry->loaded = true;
    return entry;
  };

  while (!input.empty()) {
    const std::string key(1, static_cast<char>('a' + input.below(4)));
    const auto found = plain.find(key);
    const bool there = found != plain.end();
    switch (input.below(8)) {
      case 0: {
        const auto entry = ready();
        finish(models.add(key, entry->model), roster::errc::already_exists, there);
        plain.try_emplace(key, entry);
        break;
      }
      case 1: {
        auto entry = std::make_shared<plain_entry>();
        entry->model = test::make_model(2);
        entry->gate = std::make_shared<test::gate>(loop);
        const auto load = [entry](roster::load_context&) -> asio::awaitable<std::shared_ptr<image_embedding::model>> {
          co_await entry->gate->wait();
          co_return entry->model;
        };
        finish(models.add(key, roster::model_info(), load), roster::errc::already_exists, there);
        plain.try_emplace(key, entry);
        break;
      }
      case 2: {
        const auto entry = ready();
        finish(models.replace(key, entry->model), roster::errc::not_found, !there);
        if (there) found->second = entry;
        break;
      }
      case 3: {
        auto running = test::spawn(loop, models.remove(key));
        test::drain(loop);
        require(running.succeeded(), "removing succeeds");
        require((std::get<0>(std::tuple(running.value())) != 0) == there, "removing tells what was there");
        plain.erase(key);
        break;
      }
      case 4: {
        auto running = test::spawn(loop, models.get(key));
        test::drain(loop);
        if (!there)
          require(running.code() == roster::errc::not_found, "what the map has not is not found");
        else
          lookups.push_back({std::move(running), found->second});
        break;
      }
      case 5:
        if (!lookups.empty()) {
          auto& chosen = lookups[input.below(lookups.size())];
          if (chosen.running.done()) break;
          chosen.running.cancel();
          chosen.cancelled = true;
          test::drain(loop);
        }
        break;
      case 6:
        if (there && found->second->gate) {
          found->second->gate->open();
          test::drain(loop);
        }
        break;
      default: {
        auto running = test::spawn(loop, models.list());
        test::drain(loop);
        require(running.succeeded() && running.value().size() == plain.size(), "the list is as long as the map");
        auto expected = plain.begin();
        for (const auto& row : running.value()) {
          require(row.key == expected->first, "the list has the keys of the map, in order");
          require((row.state == roster::load_state::ready) == expected->second->loaded, "the list tells what is loaded");
          ++expected;
        }
      }
    }
    for (auto& each : lookups) {
      if (!each.running.done()) continue;
      if (each.running.succeeded()) {
        each.of->loaded = true;
        require(&*each.running.value() == each.of->model.get(), "a lookup finds the model that the map had");
      } else {
        require(each.cancelled && each.running.aborted(), "a lookup fails only when it was cancelled");
      }
    }
    for (const auto& [name, entry] : plain)
      require(models.try_get(name).has_value() == entry->loaded, "try_get finds what is loaded");
  }
  for (auto& each : lookups)
    if (each.of->gate) each.of->gate->open();
  test::drain(loop);
  for (auto& each : lookups)
    require(each.running.done(), "no lookup is forgotten");
  return 0;
}
