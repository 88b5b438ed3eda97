#include <roster/roster.hpp>
#ifdef ROSTER_TEST_OPENCV
#include <roster/engines/opencv.hpp>
#endif

int two();

int two() {
  return 2;
}
