#include "libxos/jemalloc/thread_caches.hpp"

#include <pthread.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <new>

#include "libxos/jemalloc/control.hpp"

namespace xos::memory {

namespace {

/// What threads and heaps know of each other. The lock is held across a fork.
struct registry {
    std::mutex lock;
    std::map<std::uint64_t, cache_set*> living;
    std::uint64_t last_serial = 0;
};

/// Never destroyed: threads and heaps may end after the destructors of static objects.
registry& the_registry() {
    static registry& r = []() -> registry& {
        auto& made = *new registry;
        pthread_atfork([] { the_registry().lock.lock(); }, [] { the_registry().lock.unlock(); },
                       [] { the_registry().lock.unlock(); });
        return made;
    }();
    return r;
}

/// Made at start-up: a fork under way would not know of a registry made meanwhile.
[[maybe_unused]] const registry& from_the_beginning = the_registry();

/// Fails only for an invalid number.
void empty(unsigned cache) noexcept {
    static_cast<void>(control::write("tcache.flush", cache));
}

/// The cache that this thread used last, and whether it may have one. The members have trivial
/// destructors, so they can be used until the thread is gone.
constinit thread_local struct {
    std::uint64_t serial = 0;
    int flags = 0;
    bool ending = false;
} last;

}  // namespace

struct own_caches {
    struct entry {
        std::uint64_t serial;
        unsigned cache;
    };
    std::vector<entry> entries;

    const entry* find(std::uint64_t serial) const {
        for (const entry& e : entries) {
            if (e.serial == serial) return &e;
        }
        return nullptr;
    }

    ~own_caches() {
        last = {0, 0, true};
        registry& r = the_registry();
        std::lock_guard guard(r.lock);
        for (const entry& e : entries) {
            const auto heap = r.living.find(e.serial);
            if (heap != r.living.end()) heap->second->idle_.push_back(e.cache);
        }
    }
};

namespace {

thread_local own_caches own;

}  // namespace

cache_set::cache_set() {
    registry& r = the_registry();
    std::lock_guard guard(r.lock);
    serial_ = ++r.last_serial;
    r.living.emplace(serial_, this);
}

cache_set::~cache_set() {
    registry& r = the_registry();
    std::lock_guard guard(r.lock);
    r.living.erase(serial_);
    for (const unsigned cache : all_) static_cast<void>(control::write("tcache.destroy", cache));
}

int cache_set::flags() noexcept {
    return last.serial == serial_ ? last.flags : find();
}

int cache_set::find() noexcept {
    if (last.ending) return MALLOCX_TCACHE_NONE;
    try {
        const own_caches::entry* e = own.find(serial_);
        if (!e) {
            registry& r = the_registry();
            std::lock_guard guard(r.lock);
            std::erase_if(own.entries,
                          [&](const auto& old) { return !r.living.contains(old.serial); });
            own.entries.reserve(own.entries.size() + 1);
            if (idle_.empty()) {
                // Makes room first: then nothing fails between making a cache and storing it, nor
                // when its thread ends.
                all_.reserve(all_.size() + 1);
                idle_.reserve(all_.size() + 1);
                idle_.push_back(control::read<unsigned>("tcache.create"));
                all_.push_back(idle_.back());
            }
            own.entries.push_back({serial_, idle_.back()});
            idle_.pop_back();
            e = &own.entries.back();
        }
        last.serial = serial_;
        last.flags = static_cast<int>(MALLOCX_TCACHE(e->cache));
        return last.flags;
    } catch (const std::exception&) {
        // There is no memory or no number for a cache: the heap works without one.
        return MALLOCX_TCACHE_NONE;
    }
}

void cache_set::flush() noexcept {
    registry& r = the_registry();
    std::lock_guard guard(r.lock);
    for (const unsigned cache : idle_) empty(cache);
    if (last.ending) return;
    if (const auto* e = own.find(serial_)) empty(e->cache);
}

}  // namespace xos::memory
