#pragma once

#include <roster/call/embeddings.hpp>
#include <roster/capability/capability.hpp>
#include <roster/error.hpp>

#include <fmt/format.h>

#include <cstddef>
#include <utility>
#include <vector>

ROSTER_BEGIN_NAMESPACE

/// A model that turns what its capability takes into vectors.
template <typename C>
class embedding_model : public unary_model<C> {
 public:
  using unary_model<C>::unary_model;

  /// The length of its vectors; 0 when not known before the first call.
  std::size_t dimension() const noexcept { return this->info().dimension; }

  /// The vector of one item. Otherwise like `call`.
  [[nodiscard]] asio::awaitable<embedding> embed(typename C::input item, typename C::options options = typename C::options()) {
    std::vector<typename C::input> batch;
    batch.push_back(std::move(item));
    return first(this->call(std::move(batch), std::move(options)));
  }

  /// A vector for each item; without items none, of the known length. Otherwise like `call`.
  [[nodiscard]] asio::awaitable<embeddings> embed(std::vector<typename C::input> items,
                                                  typename C::options options = typename C::options()) {
    if (items.empty()) return nothing(dimension());
    return this->call(std::move(items), std::move(options));
  }

 private:
  static asio::awaitable<embeddings> nothing(std::size_t length) { co_return embeddings(0, length); }

  static asio::awaitable<embedding> first(asio::awaitable<embeddings> batch) {
    const auto vectors = co_await std::move(batch);
    if (vectors.rows() != 1) throw error(errc::bad_output, fmt::format("{} vectors for one item", vectors.rows()));
    const auto row = vectors[0];
    co_return embedding(row.begin(), row.end());
  }
};

ROSTER_END_NAMESPACE
