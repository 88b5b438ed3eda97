#pragma once

// Everything but the adapters for inference engines and what tests use, which are included one by one.

#include <roster/call/clock.hpp>
#include <roster/call/run_context.hpp>
#include <roster/capability/capability.hpp>
#include <roster/capability/image_embedding.hpp>
#include <roster/capability/text_embedding.hpp>
#include <roster/capability/text_to_image.hpp>
#include <roster/capability/text_to_text.hpp>
#include <roster/error.hpp>
#include <roster/exec/blocking_pool.hpp>
#include <roster/exec/stream.hpp>
#include <roster/exec/time_source.hpp>
#include <roster/exec/within.hpp>
#include <roster/exec/worker_thread.hpp>
#include <roster/registry/catalog.hpp>
#include <roster/registry/registry.hpp>
#include <roster/serving/pinned.hpp>
#include <roster/serving/pooled.hpp>
#include <roster/sync/once_cell.hpp>
#include <roster/sync/semaphore.hpp>
#include <roster/sync/shared_mutex.hpp>
#include <roster/version.hpp>
