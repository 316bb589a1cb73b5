// What all connections share: the data, who we are, and what was counted.
#pragma once

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "store.hpp"

namespace kvd {

/// Exits of the cell so far; all zero on plain Linux.
struct crossings {
    std::uint64_t exits = 0;
    std::uint64_t forwarded = 0;  ///< system calls among them
};

struct identity {
    std::string engine;
    std::string mode;
    std::uint16_t port = 0;
    std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
};

struct counters {
    alignas(64) std::atomic<std::uint64_t> commands{0};
    alignas(64) std::atomic<std::uint64_t> connections{0};
    std::atomic<std::uint64_t> clients{0};
};

struct service {
    store data;
    identity self;
    counters counted;
    std::function<crossings()> count_crossings;
    std::function<void()> stop;  ///< asks the server to end; callable from every thread
};

}  // namespace kvd
