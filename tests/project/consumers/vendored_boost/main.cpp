#include <roster/version.hpp>

#if !defined(CONSUMER_HAS_asio) || !defined(CONSUMER_HAS_system) || !defined(CONSUMER_HAS_unordered)
#error "roster::roster does not link the Boost of this project"
#endif

int main() {}
