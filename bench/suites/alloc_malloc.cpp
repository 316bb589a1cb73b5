// Small objects: malloc in steady state, which hardly ever needs memory from anybody.
#include <semaphore.h>

#include <thread>
#include <vector>

#include "bench/clock.hpp"
#include "bench/harness.hpp"
#include "bench/suites/allocators.hpp"

namespace xos::bench {

namespace {

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

template <class Malloc, void (*Prepare)()>
void prepare_small() {
    Prepare();
    small<Malloc>::fill();
}

void nothing() {}

template <class Malloc, void (*Prepare)() = nothing>
constexpr side small_objects(place where) {
    return {.where = where, .setup = prepare_small<Malloc, Prepare>, .run = small<Malloc>::run};
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

template <class Malloc, void (*Prepare)()>
void prepare_mix() {
    Prepare();
    mix<Malloc>::begin();
}

template <class Malloc, void (*Prepare)() = nothing>
constexpr side mixed_objects(place where) {
    return {.where = where,
            .setup = prepare_mix<Malloc, Prepare>,
            .measure = mix<Malloc>::measure,
            .teardown = mix<Malloc>::end};
}

const registration rows[] = {
    registration({.suite = "alloc",
                  .name = "malloc-small",
                  .note = "free and malloc, 16 to 511 bytes; jemalloc, inside on an arena",
                  .linux_way = small_objects<jemalloc>(place::own_process),
                  .xos_way = small_objects<jemalloc, put_jemalloc_on_arena>(place::own_cell),
                  .counted_operations = 4000,
                  .others = {{"glibc", small_objects<glibc>(place::own_process)}}}),
    registration({.suite = "alloc",
                  .name = "malloc-small-glibc",
                  .note = "the same; glibc",
                  .linux_way = small_objects<glibc>(place::own_process),
                  .xos_way = small_objects<glibc>(place::own_cell),
                  .counted_operations = 4000}),
    registration({.suite = "alloc",
                  .name = "malloc-mix",
                  .note = "malloc, a realloc every fourth time, another thread's free; jemalloc, "
                          "inside on an arena",
                  .linux_way = mixed_objects<jemalloc>(place::own_process),
                  .xos_way = mixed_objects<jemalloc, put_jemalloc_on_arena>(place::own_cell),
                  .counted_operations = 8192,
                  .others = {{"glibc", mixed_objects<glibc>(place::own_process)}}}),
    registration({.suite = "alloc",
                  .name = "malloc-mix-glibc",
                  .note = "the same; glibc",
                  .linux_way = mixed_objects<glibc>(place::own_process),
                  .xos_way = mixed_objects<glibc>(place::own_cell),
                  .counted_operations = 8192}),
};

}  // namespace

}  // namespace xos::bench
