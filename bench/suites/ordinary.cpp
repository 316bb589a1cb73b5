// Ordinary code: the same functions outside and inside. The ratio is to be 1.
#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <stdexcept>

#include "bench/harness.hpp"

namespace xos::bench {

namespace {

/// Keeps the compiler from seeing that nobody looks at the result.
void use(const void* p) {
    asm volatile("" : : "r"(p) : "memory");
}

registration same_code(const char* name, const char* note, void (*run)(std::uint64_t),
                       std::uint64_t counted_operations = 400) {
    return registration({
        .suite = "ordinary",
        .name = name,
        .note = note,
        .linux_way = side{.where = place::outside, .run = run},
        .xos_way = {.where = place::inside, .run = run},
        .counted_operations = counted_operations,
    });
}

void format(std::uint64_t operations) {
    char text[64];
    for (; operations; operations--) {
        std::snprintf(text, sizeof text, "%d %s %f", 4711, "text", 1.5);
        use(text);
    }
}

void allocate(std::uint64_t operations) {
    for (std::uint64_t i = 0; i < operations; i++) {
        void* p = std::malloc(16 + i * 200 % 8192);
        use(p);
        std::free(p);
    }
}

alignas(4096) char source[1 << 20], destination[1 << 20];

template <std::size_t Size>
void copy(std::uint64_t operations) {
    for (; operations; operations--) {
        std::memcpy(destination, source, Size);
        use(destination);
    }
}

void lock(std::uint64_t operations) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    for (; operations; operations--) {
        pthread_mutex_lock(&mutex);
        pthread_mutex_unlock(&mutex);
    }
}

void throw_and_catch(std::uint64_t operations) {
    for (; operations; operations--) {
        try {
            throw std::runtime_error("thrown");
        } catch (const std::exception& e) {
            use(e.what());
        }
    }
}

void read_clock(std::uint64_t operations) {
    timespec now;
    for (; operations; operations--) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        use(&now);
    }
}

const registration rows[] = {
    same_code("snprintf", "a number, a string, a double", format),
    same_code("malloc-free", "16 bytes to 8 KiB", allocate),
    same_code("memcpy-64k", "", copy<64 << 10>, 40),
    same_code("memcpy-1m", "", copy<1 << 20>, 8),
    same_code("mutex", "lock and unlock", lock),
    same_code("throw-catch", "std::runtime_error", throw_and_catch, 100),
    same_code("clock_gettime", "by the vDSO", read_clock),
};

}  // namespace

}  // namespace xos::bench
