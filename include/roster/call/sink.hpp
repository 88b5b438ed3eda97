#pragma once

#include <roster/version.hpp>

ROSTER_BEGIN_NAMESPACE

/// Where an engine puts its output. Used by the engine's thread only. An interface, so that an engine can be tested with
/// another sink.
template <typename Chunk>
class sink {
 public:
  sink(const sink&) = delete;
  sink& operator=(const sink&) = delete;
  virtual ~sink() = default;

  /// Passes a chunk on. If the stream is full this blocks the engine's thread until half of the buffer has been read. False if
  /// no more chunks are wanted: this one is dropped, and the engine should return.
  virtual bool push(Chunk chunk) = 0;

 protected:
  sink() = default;
};

ROSTER_END_NAMESPACE
