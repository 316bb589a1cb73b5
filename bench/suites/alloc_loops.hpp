// What the suite `alloc` does with a malloc, in this program or in one made with that malloc
// (mimalloc_worker.cpp).
#pragma once

#include <semaphore.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <thread>

#include "bench/clock.hpp"
#include "bench/harness.hpp"

namespace xos::bench {

/// Keeps the compiler from seeing that nobody looks at the memory.
inline void use(void* p) {
    asm volatile("" : : "r"(p) : "memory");
}

/// Writes to every page.
inline void touch(void* p, std::size_t n) {
    if (!p) throw std::bad_alloc();
    auto* bytes = static_cast<volatile char*>(p);
    for (std::size_t at = 0; at < n; at += 4096) bytes[at] = 1;
}

/// Marsaglia's xorshift: the same sequence for every side.
struct random_sequence {
    std::uint64_t state = 88172645463325252;

    std::uint64_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        return state ^= state << 17;
    }
    /// Of [low, low << doublings), each power of two as likely as the next.
    std::size_t size(std::size_t low, unsigned doublings) {
        const std::size_t base = low << next() % doublings;
        return base + next() % base;
    }
};

inline void nothing() {}

template <void (*First)(), void (*Second)()>
void in_turn() {
    First();
    Second();
}

// ---- One thread, 4096 objects of 16 to 511 bytes, of which it replaces any.

template <class Malloc>
struct small {
    static inline void* held[4096];
    static inline random_sequence random;

    static void run(std::uint64_t operations) {
        for (; operations; operations--) {
            void*& p = held[random.next() % 4096];
            Malloc::free(p, 0);
            p = Malloc::allocate(16 + random.next() % 496);
            *static_cast<volatile char*>(p) = 1;
        }
    }
    /// Until nearly every extent that a peak of any size class needs has been there.
    static void fill() { run(2'000'000); }
};

template <class Malloc, void (*Prepare)() = nothing>
constexpr side small_objects(place where) {
    return {
        .where = where, .setup = in_turn<Prepare, small<Malloc>::fill>, .run = small<Malloc>::run};
}

// ---- Two threads: one allocates, and reallocates every fourth object; the other frees. In turn, a
// batch each: what counts is the time that each spends in malloc, not that for handing over.

template <class Malloc>
struct mix {
    static constexpr std::size_t batch = 4096;
    static inline void* objects[batch];
    static inline std::size_t count;
    static inline std::uint64_t spent_freeing;
    static inline sem_t full, empty;  // as they are they have the value 0
    static inline random_sequence random;
    static inline std::thread consumer;

    static void consume() {
        for (;;) {
            sem_wait(&full);
            if (count == 0) return;
            const std::uint64_t start = ticks();
            for (std::size_t i = 0; i < count; i++) Malloc::free(objects[i], 0);
            spent_freeing = ticks() - start;
            sem_post(&empty);
        }
    }
    static std::uint64_t produce() {
        const std::uint64_t start = ticks();
        for (std::size_t i = 0; i < count; i++) {
            const std::size_t bytes = random.size(16, 7);
            void* p = Malloc::allocate(bytes);
            *static_cast<volatile char*>(p) = 1;
            if (i % 4 == 0) p = Malloc::reallocate(p, 2 * bytes);
            objects[i] = p;
        }
        return ticks() - start;
    }
    static std::uint64_t measure(std::uint64_t operations) {
        std::uint64_t spent = 0;
        while (operations) {
            count = operations < batch ? operations : batch;
            operations -= count;
            spent += produce();
            sem_post(&full);
            sem_wait(&empty);
            spent += spent_freeing;
        }
        return spent;
    }
    static void begin() {
        consumer = std::thread(consume);
        measure(200 * batch);
    }
    static void end() {
        count = 0;
        sem_post(&full);
        consumer.join();
    }
};

template <class Malloc, void (*Prepare)() = nothing>
constexpr side mixed_objects(place where) {
    return {.where = where,
            .setup = in_turn<Prepare, mix<Malloc>::begin>,
            .measure = mix<Malloc>::measure,
            .teardown = mix<Malloc>::end};
}

// ---- Each of 1, 2, 4, ... 64 MiB once, freed when the next one is there.

template <class Malloc>
void churn(std::uint64_t operations) {
    constexpr std::size_t mib = 1 << 20;
    void* last = nullptr;
    std::size_t last_bytes = 0;
    for (; operations; operations--) {
        for (std::size_t bytes = mib; bytes <= 64 * mib; bytes *= 2) {
            void* p = Malloc::allocate(bytes);
            touch(p, bytes);
            if (last) Malloc::free(last, last_bytes);
            last = p;
            last_bytes = bytes;
        }
    }
    if (last) Malloc::free(last, last_bytes);
}

template <class Malloc, void (*Prepare)() = nothing>
constexpr side large_blocks(place where) {
    return {.where = where, .setup = Prepare, .run = churn<Malloc>};
}

// ---- Of 64 blocks any is replaced by one of another size, while the other processor is busy.

/// Of this process, so that what concerns all its threads costs what it costs.
struct load {
    static inline std::atomic<bool> wanted;
    static inline std::thread thread;

    static void begin() {
        wanted = true;
        thread = std::thread([] {
            static unsigned long memory[4096];
            for (std::size_t i = 0; wanted.load(std::memory_order_relaxed); i++) {
                memory[i % 4096] += i;
                use(memory);
            }
        });
    }
    static void end() {
        wanted = false;
        thread.join();
    }
};

/// The 99.9th percentile of a block's free and the next one's allocation and first touch, times
/// `operations`.
template <class Malloc>
std::uint64_t percentile(std::uint64_t operations) {
    constexpr std::size_t samples = 2000;
    static std::uint64_t taken[samples];
    static struct {
        void* at;
        std::size_t bytes;
    } held[64];
    random_sequence random;
    for (std::uint64_t& t : taken) {
        const std::size_t bytes = random.size(8 << 10, 9);
        auto& slot = held[random.next() % 64];
        const std::uint64_t start = ticks();
        if (slot.at) Malloc::free(slot.at, slot.bytes);
        slot = {Malloc::allocate(bytes), bytes};
        touch(slot.at, bytes);
        t = ticks() - start;
    }
    auto* const nth = taken + samples - 1 - samples / 1000;
    std::nth_element(taken, nth, taken + samples);
    return *nth * operations;
}

template <class Malloc, void (*Prepare)() = nothing>
constexpr side latencies(place where) {
    return {.where = where,
            .setup = in_turn<Prepare, load::begin>,
            .measure = percentile<Malloc>,
            .teardown = load::end,
            .most = 1};
}

}  // namespace xos::bench
