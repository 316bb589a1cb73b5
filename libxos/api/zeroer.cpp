#include "libxos/api/zeroer.hpp"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace xos::api {

namespace {

// Never destroyed: the thread uses them until the process ends.
struct zeroer {
    std::mutex lock;
    std::condition_variable idle;
    std::vector<vm::arena*> arenas;
    bool running = false;
};

zeroer& the_zeroer() {
    static auto* z = new zeroer;
    return *z;
}

/// Often enough for what a busy service frees, rarely enough to cost nothing when it is idle.
constexpr auto pause_between_rounds = std::chrono::milliseconds(5);

void work() {
    zeroer& z = the_zeroer();
    std::unique_lock guard(z.lock);
    while (!z.arenas.empty()) {
        std::uint64_t done = 0;
        for (vm::arena* a : z.arenas) done += a->zero_some_in_host(large_page_size);
        if (done == 0)
            z.idle.wait_for(guard, pause_between_rounds);
        else
            guard.unlock(), guard.lock();
    }
    z.running = false;
}

void start_thread(zeroer& z) {
    if (z.running || z.arenas.empty()) return;
    z.running = true;
    std::thread(work).detach();
}

/// Registered at start-up: a fork that is under way does not call handlers registered meanwhile. A
/// fork copies the data that the thread works on, but not the thread.
[[maybe_unused]] const int watching =
    pthread_atfork([] { the_zeroer().lock.lock(); }, [] { the_zeroer().lock.unlock(); },
                   [] {
                       the_zeroer().running = false;
                       the_zeroer().lock.unlock();
                   });

}  // namespace

void zero_in_background(vm::arena& a) {
    zeroer& z = the_zeroer();
    std::lock_guard guard(z.lock);
    z.arenas.push_back(&a);
    start_thread(z);
}

void ignore_arena(vm::arena& a) {
    zeroer& z = the_zeroer();
    std::lock_guard guard(z.lock);
    std::erase(z.arenas, &a);
}

}  // namespace xos::api
