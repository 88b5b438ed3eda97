#include "tests/support/precompiled.hpp"  // the precompiled header needs a source that uses it
