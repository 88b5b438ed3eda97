#pragma once

#include <roster/version.hpp>

ROSTER_BEGIN_NAMESPACE

/// Where an engine puts what it produces. Used by the engine's thread only.
///
/// An interface, so that an engine can be tried out with a sink of one's own.
template <typename Chunk>
class sink {
 public:
  sink(const sink&) = delete;
  sink& operator=(const sink&) = delete;
  virtual ~sink() = default;

  /// Hands a chunk on. Where the stream is full it blocks the engine's thread, until half of what is buffered has been read.
  /// False when nobody wants more: the chunk is dropped, and the engine should return.
  virtual bool push(Chunk chunk) = 0;

 protected:
  sink() = default;
};

ROSTER_END_NAMESPACE
