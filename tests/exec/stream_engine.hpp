#pragma once

namespace test {

struct engine {
  int runs = 0;
};

inline engine make_engine() {
  return {};
}

}  // namespace test
