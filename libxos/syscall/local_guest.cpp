#include <asm/unistd.h>

#include "libxos/syscall/local.hpp"
#include "libxos/syscall/trace.hpp"

xos::local_call xos_local_calls[XOS_SYSCALL_TABLE] = {};

#define XOS_LOCAL_VALUE(name, served, offset) XOS_LOCAL_CALL(name, served)

extern "C" {
// local_calls_guest.S
#define XOS_LOCAL_CALL(name, served)                           \
    long xos_local_##name(long, long, long, long, long, long); \
    long xos_traced_##name(long, long, long, long, long, long);
#include "libxos/syscall/local_calls.def"
#undef XOS_LOCAL_CALL
}

namespace xos::syscall {

namespace {

struct own_answer {
    unsigned number;
    served group;
    local_call plain, logging;
};

constexpr own_answer own_answers[] = {
#define XOS_LOCAL_CALL(name, group) \
    {__NR_##name, served::group, xos_local_##name, xos_traced_##name},
#include "libxos/syscall/local_calls.def"
#undef XOS_LOCAL_CALL
};

bool is_served[static_cast<unsigned>(served::count)] = {};

void put(unsigned number, local_call present, local_call next) {
    __atomic_compare_exchange_n(&xos_local_calls[number], &present, next, false, __ATOMIC_RELEASE,
                                __ATOMIC_RELAXED);
}

}  // namespace

void answer_inside(served group) {
    __atomic_store_n(&is_served[static_cast<unsigned>(group)], true, __ATOMIC_RELEASE);
    for (const own_answer& a : own_answers) {
        if (a.group == group) put(a.number, nullptr, answer_of_own(a.number));
    }
}

void answer_outside(served group) {
    __atomic_store_n(&is_served[static_cast<unsigned>(group)], false, __ATOMIC_RELEASE);
    for (const own_answer& a : own_answers) {
        if (a.group != group) continue;
        put(a.number, a.plain, nullptr);
        put(a.number, a.logging, nullptr);
    }
}

local_call answer_of_own(unsigned number) {
    for (const own_answer& a : own_answers) {
        if (a.number != number) continue;
        const auto group = static_cast<unsigned>(a.group);
        if (!__atomic_load_n(&is_served[group], __ATOMIC_ACQUIRE)) return nullptr;
        return tracing() ? a.logging : a.plain;
    }
    return nullptr;
}

bool belongs_to(served group, unsigned number) {
    for (const own_answer& a : own_answers) {
        if (a.number == number) return a.group == group;
    }
    return false;
}

local_call logging_entry(local_call plain) {
    for (const own_answer& a : own_answers) {
        if (a.plain == plain) return a.logging;
    }
    return nullptr;
}

}  // namespace xos::syscall
