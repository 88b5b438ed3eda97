#include <roster/engines/opencv.hpp>

#include <opencv2/core/version.hpp>

int main() {
  return CV_VERSION_MAJOR >= 4 ? 0 : 1;
}
