#include <headers_of_others.hpp>

// As windows.h does. The standard library undefines them, so they come after it.
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))

#include <roster/roster.hpp>
#if __has_include(<opencv2/dnn.hpp>)
#include <roster/engines/opencv.hpp>
#endif

#ifndef min
#error "min is no macro any more, so this test says nothing"
#endif

int main() {}
