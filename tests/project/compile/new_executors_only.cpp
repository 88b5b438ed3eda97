#define BOOST_ASIO_NO_TS_EXECUTORS
#define BOOST_ASIO_NO_DEPRECATED

#include <roster/roster.hpp>
#if __has_include(<opencv2/dnn.hpp>)
#include <roster/engines/opencv.hpp>
#endif

#include "../consumers/main.cpp"
