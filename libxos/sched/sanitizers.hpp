// What sanitizers want to know of stack switches. Nothing of it is left without them.
#pragma once

#include <xos/sched/detail/switch.hpp>

#ifdef XOS_SCHED_ASAN
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef XOS_SCHED_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace xos::sched::detail {

inline void unpoison([[maybe_unused]] char* from, [[maybe_unused]] std::size_t bytes) noexcept {
#ifdef XOS_SCHED_ASAN
    __asan_unpoison_memory_region(from, bytes);
#endif
}

/// A fiber whose stack is `low` to `high`.
inline void announce_fiber([[maybe_unused]] fiber_state& f) noexcept {
#ifdef XOS_SCHED_ASAN
    f.stack_bottom = f.stack_low;
    f.stack_bytes = static_cast<std::size_t>(f.callable - f.stack_low);
#endif
#ifdef XOS_SCHED_TSAN
    f.thread_sanitizer_fiber = __tsan_create_fiber(0);
#endif
}

/// A worker's own loop, on the calling thread.
inline void announce_root([[maybe_unused]] fiber_state& root) noexcept {
#ifdef XOS_SCHED_ASAN
    pthread_attr_t attributes;
    void* low = nullptr;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &low, &root.stack_bytes);
    pthread_attr_destroy(&attributes);
    root.stack_bottom = low;
#endif
#ifdef XOS_SCHED_TSAN
    root.thread_sanitizer_fiber = __tsan_get_current_fiber();
#endif
}

inline void forget_fiber([[maybe_unused]] fiber_state& f) noexcept {
#ifdef XOS_SCHED_TSAN
    if (f.thread_sanitizer_fiber) __tsan_destroy_fiber(f.thread_sanitizer_fiber);
#endif
}

/// Right before the jump; `from` is null if it has ended.
inline void before_switch([[maybe_unused]] fiber_state* from,
                          [[maybe_unused]] fiber_state& to) noexcept {
#ifdef XOS_SCHED_ASAN
    __sanitizer_start_switch_fiber(from ? &from->fake_stack : nullptr, to.stack_bottom,
                                   to.stack_bytes);
#endif
#ifdef XOS_SCHED_TSAN
    __tsan_switch_to_fiber(to.thread_sanitizer_fiber, 0);
#endif
}

/// Right after it, in `self`.
inline void after_switch([[maybe_unused]] fiber_state& self) noexcept {
#ifdef XOS_SCHED_ASAN
    __sanitizer_finish_switch_fiber(self.fake_stack, nullptr, nullptr);
#endif
}

}  // namespace xos::sched::detail
